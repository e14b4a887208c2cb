"""A run killed with SIGKILL and resumed leaves the same bits as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import TERNARY, run

import tritkit
from tritkit.errors import UserError
from tritkit.train import Silent, loop, read_record

_STEPS = 24  # 3 epochs of 8
_TINY = Path(__file__).with_name("tiny.py")


def _killed(out: Path, at: int, changes: dict[str, Any]) -> None:
    package = str(Path(tritkit.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}
    command = [sys.executable, str(_TINY), str(out), str(at), json.dumps(changes)]
    process = subprocess.run(command, env=environment, check=False)
    assert process.returncode == -signal.SIGKILL


def _bits(out: Path) -> dict[str, tuple[str, bytes]]:
    tensors = load_file(out / "final.safetensors")
    return {key: (str(value.dtype), value.numpy().tobytes()) for key, value in tensors.items()}


def _rows(out: Path) -> list[dict[str, Any]]:
    varying = ("seconds", "commit")  # a commit may be made, or a file changed, between two runs
    return [{k: v for k, v in row.items() if k not in varying} for row in read_record(out / "record.jsonl")]


_ROUNDED = {**TERNARY, "activations": {**TERNARY["activations"], "int8_weights": True}}


@pytest.mark.parametrize("changes", [{}, {**_ROUNDED, "held_out": 16, "cutmix": 0.5}], ids=["float", "ternary"])
def test_killed_twice(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = run(whole, changes)
    # 2: before the first checkpoint of a step; 14: two steps after one, in the epoch that has got its activations
    for at in (2, 14):
        _killed(cut, at, changes)
    resumed = run(cut, changes)
    assert _bits(cut) == _bits(whole)
    assert _rows(cut) == _rows(whole)
    assert resumed.test_error == result.test_error
    assert [row["kind"] for row in _rows(cut)] == ["header", "epoch", "epoch", "epoch", "final"]


def test_killed_at_the_very_end(tmp_path: Path) -> None:
    run(tmp_path / "whole", {})
    _killed(tmp_path / "cut", _STEPS, {})
    run(tmp_path / "cut", {})
    assert _bits(tmp_path / "cut") == _bits(tmp_path / "whole")
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """A crash between a row and its checkpoint: the row is written again, not twice."""
    run(tmp_path / "whole", {})
    _killed(tmp_path / "cut", 20, {})
    with (tmp_path / "cut" / "record.jsonl").open("a") as record:
        record.write('{"kind": "epoch", "epoch": 3}\n{"kind": "ep')
    run(tmp_path / "cut", {})
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


class _NoSteps(Silent):
    def step(self, done: int) -> None:
        raise AssertionError("a finished run must not train")


def test_a_finished_run_is_only_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "run", {})
    before = (tmp_path / "run" / "record.jsonl").read_bytes()
    for part in ("build_network", "make_loss"):  # a teacher of 8 bits takes seconds
        monkeypatch.delattr(loop, part)
    assert run(tmp_path / "run", {}, _NoSteps()) == first
    assert (tmp_path / "run" / "record.jsonl").read_bytes() == before


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    _killed(tmp_path / "run", 5, {})
    with pytest.raises(UserError, match="other values of lr, seed"):
        run(tmp_path / "run", {"lr": 0.01, "seed": 9})


def test_a_checkpoint_from_before_a_key_goes_on(tmp_path: Path) -> None:
    """Keys that recipes have got since, in tables too, stand at what does nothing."""
    changes = {**TERNARY, "activations": {"from_epoch": 2}}
    _killed(tmp_path / "run", 5, changes)
    path = tmp_path / "run" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["recipe"]["cutmix"], state["recipe"]["activations"]["int8_weights"]
    torch.save(state, path)
    run(tmp_path / "run", changes)
    assert _rows(tmp_path / "run")[-1]["kind"] == "final"


def test_without_resume_a_run_is_not_overwritten(tmp_path: Path) -> None:
    _killed(tmp_path / "run", 5, {})
    with pytest.raises(UserError, match="holds a run already"):
        run(tmp_path / "run", {}, resume=False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x80\x02cos\nsystem\n(S'true'\ntR."])
def test_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    _killed(tmp_path / "run", 5, {})
    (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
    with pytest.raises(UserError, match="not a whole checkpoint"):
        run(tmp_path / "run", {})
