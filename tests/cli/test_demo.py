"""`demo`: every engine agrees, every number is measured, and the tables say what the JSON says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from rich.console import Console

from tritkit import zoo
from tritkit.cli.demo import networks, timing
from tritkit.cli.demo.render import render
from tritkit.models import build


@pytest.fixture
def small_zoo(net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of 8 layers in the place of the packaged ones, and no whole test set."""
    torch.manual_seed(0)
    path = tmp_path / "float.safetensors"
    norm = {"normalize_mean": "0.5,0.25,0.75", "normalize_std": "0.25,0.5,0.125"}
    safetensors.torch.save_file(build("cifar-resnet8").state_dict(), path, norm)
    files = {"resnet20-cifar10-float": path, "resnet20-cifar10-ternary": net_file}
    monkeypatch.setattr(networks, "hub", lambda name: files.get(name) or zoo.hub(name))
    monkeypatch.setattr(networks, "build", lambda name: build("cifar-resnet8"))
    monkeypatch.setattr(networks, "_whole_test", lambda data: None)
    monkeypatch.setattr(timing, "_ROUND", 0.001)


def test_demo(small_zoo: None, cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = cli("demo", "--quick", "--threads", 2, "--out", tmp_path / "out", "--json")
    facts = json.loads(out)
    assert code == 0
    assert "4/4" in err
    engines = {row["engine"] for row in facts["equality"]}
    assert {
        "PyTorch simulation",
        "NumPy reference",
        "ONNX Runtime",
        "tritkit, 1 thread",
        "tritkit, 2 threads",
    } <= engines
    assert all(row["same_bits"] and row["images"] > 0 for row in facts["equality"])
    written = Path(facts["files"]["post_training"])
    assert [row["bytes"] for row in facts["networks"]][1] == written.stat().st_size
    assert all(0 <= row["error_sample"] <= 1 and row["error_test"] is None for row in facts["networks"])
    assert all(ms > 0 for row in facts["speed"] for ms in row["ms_per_image"].values())
    _check_table(facts)


def _check_table(facts: dict) -> None:
    for width in (80, 120):
        console = Console(file=io.StringIO(), width=width)
        render(facts, console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        for row in facts["networks"]:
            line = next(line for line in text.splitlines() if line.startswith(row["network"]))
            assert f"{100 * row['error_sample']:.1f} %" in line
        for row in facts["speed"]:
            assert all(f"{ms:.3f}" in text for ms in row["ms_per_image"].values())
        assert facts["next"] in text
        assert max(map(len, text.partition("All of it")[0].splitlines())) <= width


def test_an_engine_with_other_bits_is_a_failure(
    cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tritkit.cli import demo

    row = {"network": "trained", "engine": "some engine", "images": 1, "same_bits": False}
    network = {"network": "x", "error_sample": 0.1, "error_test": 0.1, "bytes": 1, "density": 0.5}
    facts = {
        "networks": [network], "equality": [row], "speed": [{"engine": "e", "threads": 1, "ms_per_image": {"1": 1.0}}],
        "sample_images": 1, "files": {"post_training": "a", "trained": "b"}, "peak_memory_bytes": None,
        "seconds": 1.0, "next": "n",
    }  # fmt: skip
    monkeypatch.setattr(demo, "run_demo", lambda *options: facts)
    code, out, err = cli("demo")
    assert code == 1
    assert "NO" in out
    assert "some engine" in err
