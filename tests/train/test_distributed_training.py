"""Processes that train together: the losses of one; a lost process; going on with another number of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tiny import TERNARY, run

import tritkit
from tritkit.errors import UserError
from tritkit.train import read_record

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo backend")

_HERE = Path(__file__).parent
# float32, few steps, a small rate: rounding has no time to grow
CHANGES = {**TERNARY, "precision": "float32", "lr": 1e-3, "held_out": 64, "checkpoint_every": 2, "bn_images": 96}


def job(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What torchrun left."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tritkit.__file__).parents[1])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    worker = [str(_HERE / "distributed_worker.py"), *map(str, arguments)]
    return subprocess.run(
        [*command, *worker], env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def rows(out: Path) -> list[dict[str, Any]]:
    return read_record(out / "record.jsonl")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone")
    run(out, CHANGES)
    return out


def assert_same_run(out: Path, alone: Path) -> None:
    """To the order of additions, which alone moves this network's gradients by 1e-3 (measured against float64), and
    from the second epoch on to the roundings of 8-bit activations and codes that this tips over.
    """
    epochs = [row for row in rows(out) if row["kind"] == "epoch"]
    expected = [row for row in rows(alone) if row["kind"] == "epoch"]
    losses, wanted_losses = ([row["loss"] for row in some] for some in (epochs, expected))
    assert losses[0] == pytest.approx(wanted_losses[0], rel=5e-5)
    assert losses == pytest.approx(wanted_losses, rel=5e-3)
    assert [row["train_error"] for row in epochs] == pytest.approx([row["train_error"] for row in expected], abs=0.011)
    assert rows(out)[-1]["test_error"] == pytest.approx(rows(alone)[-1]["test_error"], abs=0.04)
    tensors, wanted = (load_file(folder / "final.safetensors") for folder in (out, alone))
    assert tensors.keys() == wanted.keys()
    for key, value in wanted.items():
        if value.is_floating_point() and "activation_quantizers" not in key:
            assert (tensors[key] - value).norm() <= 0.02 * value.norm() + 1e-3, key


@pytest.mark.parametrize("processes", [2, 4])
def test_losses_are_those_of_one_process(processes: int, alone: Path, tmp_path: Path) -> None:
    done = job(processes, tmp_path, json.dumps(CHANGES))
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path)[0]["processes"] == processes
    assert [row["kind"] for row in rows(tmp_path)] == ["header", "epoch", "epoch", "epoch", "final"]
    assert_same_run(tmp_path, alone)
    ranges = [key for key in load_file(tmp_path / "final.safetensors") if key.endswith("bounds")]
    assert ranges
    tensors, wanted = (load_file(folder / "final.safetensors") for folder in (tmp_path, alone))
    for key in ranges:
        torch.testing.assert_close(tensors[key], wanted[key], rtol=1e-2, atol=1e-3)


def test_a_lost_process_ends_the_job_and_another_number_goes_on(alone: Path, tmp_path: Path) -> None:
    done = job(2, tmp_path, json.dumps(CHANGES), 1, 1, 5)  # process 1 dies after step 5, one after a checkpoint
    assert done.returncode == 1
    assert "said: process 0 of 2" in done.stderr
    assert "the same command goes on from the last checkpoint" in done.stderr
    assert [row["kind"] for row in rows(tmp_path)] == ["header"]
    run(tmp_path, CHANGES)  # alone
    assert [row["kind"] for row in rows(tmp_path)] == ["header", "parts", "epoch", "epoch", "epoch", "final"]
    assert rows(tmp_path)[1] == {"kind": "parts", "step": 4, "processes": 1, "accumulate": 1}
    assert_same_run(tmp_path, alone)


def test_accumulation(tmp_path: Path) -> None:
    """Each part has batch statistics of its own, so losses are near those of the whole batch and not the same."""
    run(tmp_path / "whole", {"epochs": 2, "precision": "float32", "lr": 1e-6})
    run(tmp_path / "parts", {"epochs": 2, "precision": "float32", "lr": 1e-6}, accumulate=2)
    whole, parts = (rows(tmp_path / name)[1] for name in ("whole", "parts"))
    assert parts["loss"] == pytest.approx(whole["loss"], rel=0.02)
    assert parts["loss"] != whole["loss"]
    assert rows(tmp_path / "parts")[0]["accumulate"] == 2


@pytest.mark.parametrize("accumulate", [0, 3])
def test_a_batch_that_cannot_be_shared(tmp_path: Path, accumulate: int) -> None:
    with pytest.raises(UserError, match=r"batch_size is 32, which 1 processes with accumulate = .* cannot share"):
        run(tmp_path, {}, accumulate=accumulate)
