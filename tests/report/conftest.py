"""The facts of a report about the packaged network, with a little of everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from report_examples import FakeParent

import tritkit.report.timing
from tritkit.cli.app import run_app
from tritkit.report import Evidence, Labelled, gather
from tritkit.zoo import hub, sample

IMAGES = 60


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `tritkit` with the given words at 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: object) -> Result:
        capfd.readouterr()
        code = run_app([str(word) for word in words])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session", autouse=True)
def _short_timing() -> Iterator[None]:
    """Timing needs no second here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tritkit.report.timing, "_SECONDS", 0.01)
        patch.setattr(tritkit.report.timing, "_WARM_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def network() -> Path:
    return hub("resnet20-cifar10-ternary")


@pytest.fixture(scope="session")
def data() -> Labelled:
    images, labels, classes = sample("test")
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    step = len(images) // IMAGES  # the sample is sorted by class
    return Labelled(
        images[::step][:IMAGES], labels[::step][:IMAGES], classes, lambda x: (x.astype(np.float32) / 255 - mean) / std
    )


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs with the weights of two layers."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    names = ["layer1.0.conv1", "layer1.0.conv2"]
    rows: list[dict[str, Any]] = [
        {"kind": "header", "recipe": {"name": "small", "model": "cifar-resnet20", "method": {"name": "ttq"}}}
    ]
    for epoch in (1, 2, 3):
        layers = {n: {"wp": 0.1 * epoch, "wn": 0.2, "threshold": 0.05, "density": 0.5 / epoch} for n in names}
        rows.append({"kind": "epoch", "epoch": epoch, "loss": 2.0 / epoch, "train_error": 0.5 / epoch, "seconds": 60})
        rows[-1]["layers"] = layers
    rows.append({"kind": "final", "test_error": 0.125, "test_images": 8})
    (folder / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    random = np.random.default_rng(0)
    latents = {f"{n}.parametrizations.weight.original": random.normal(0, 0.1, (16, 16, 3, 3)) for n in names}
    save_file({key: value.astype(np.float32) for key, value in latents.items()}, folder / "final.safetensors")
    return folder


@pytest.fixture(scope="session")
def bench_file(tmp_path_factory: pytest.TempPathFactory, network: Path) -> Path:
    rows = [
        {"engine": engine, "family": family, "median_ms": ms, "p10_ms": ms, "p90_ms": ms, "ratio": 0.5 / ms}
        for engine, family, ms in (("tritkit", "ours", 0.5), ("slow", "float", 2.0), ("fast", "int8", 0.4))
    ]
    size = network.stat().st_size
    cell = {"batch": 1, "threads": 1, "rows": [{**row, "status": "timed", "file_bytes": size} for row in rows]}
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    path.write_text(json.dumps({"cells": [cell], "machine": {"cpu": "a processor"}}))
    return path


@pytest.fixture(scope="session")
def parent(data: Labelled) -> FakeParent:
    return FakeParent(data.labels, [3, 4], {"layer1.0.conv1": [3, 4], "layer3.2.conv2": [3, 4, 5, 6, 7], "linear": []})


@pytest.fixture(scope="session")
def facts(network: Path, data: Labelled, parent: FakeParent, run_folder: Path, bench_file: Path) -> dict[str, Any]:
    """With everything."""
    return gather(network, Evidence(run_folder, run_folder, bench_file, data, parent), threads=1)


@pytest.fixture(scope="session")
def bare(network: Path) -> dict[str, Any]:
    """With the file alone."""
    return gather(network, Evidence(), threads=1)
