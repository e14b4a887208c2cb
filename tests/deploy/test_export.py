"""`export`: every flavour runs, the bytes depend on the network alone, and an older file is never lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import tritkit
from tritkit.deploy import Reference, Simulation, checking, exporting, from_onnx, lower
from tritkit.errors import TritkitError, UserError
from tritkit.methods import TTQ


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(3)
    found = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, 2, 1), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(5, 4),
    )  # fmt: skip
    tritkit.ternarize_(found, TTQ(), exclude=["0"])
    return found


def _run(path: Path, images: Tensor) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    return result


def test_the_file_runs_in_onnx_runtime_with_the_bits_of_the_simulation(
    net: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    report = tritkit.export(net, path, images[:1], calibration=[images], input_info={"mean": [0.5], "std": [0.2]})
    assert report.bytes == path.stat().st_size
    assert "onnxruntime" in report.checked
    assert [row["kind"] for row in report.layers] == ["int8", "ternary", "ternary"]
    assert 0 < report.density < 1
    graph = from_onnx(path)
    expected = Simulation(lower(net, images, calibration=[images]))(images).numpy()
    assert np.array_equal(_run(path, images), expected)
    assert np.array_equal(Reference(graph).run(images.numpy()), expected)
    assert '"mean": [0.5]' in graph.metadata["tritkit.input"]
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_inlined_gives_the_same_bits_and_qdq_nearly_so(net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    expected = Simulation(lower(net, images, calibration=[images]))(images).numpy()
    for flavour in ("inlined", "qdq"):
        path = tmp_path / f"{flavour}.onnx"
        report = tritkit.export(net, path, images, calibration=[images], flavour=flavour)
        model = onnx.load(path)
        assert not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        assert "libtritkit" not in report.checked
    assert np.array_equal(_run(tmp_path / "inlined.onnx", images), expected)
    np.testing.assert_allclose(_run(tmp_path / "qdq.onnx", images), expected, atol=0.05 * float(np.abs(expected).max()))


def test_the_same_network_gives_the_same_bytes_without_local_paths(
    net: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    for name in ("a.onnx", "b.onnx"):
        tritkit.export(net, tmp_path / name, images[:1], calibration=[images], check=False)
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    for place in (str(tmp_path), str(Path(__file__).parents[2]), os.path.expanduser("~"), "site-packages"):
        assert place.encode() not in data


def test_float_layers_are_checked_loosely(net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    policies = {"0": "float32"}
    report = tritkit.export(net, tmp_path / "n.onnx", images, calibration=[images], policies=policies)
    assert report.layers[0]["kind"] == "float32"
    assert any("loosely" in note for note in report.notes)


def _disagree(*args: Any) -> None:
    raise TritkitError("engines disagree")


def _disk_full(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("module", "name", "stand_in", "message"),
    [
        (exporting, "check_file", _disagree, "disagree"),
        (os, "fsync", _disk_full, "No space left on device; nothing was changed"),
    ],
)
def test_an_older_file_survives_every_failure(
    net: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    module: Any, name: str, stand_in: Any, message: str,
) -> None:  # fmt: skip
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the older file")
    monkeypatch.setattr(module, name, stand_in)
    with pytest.raises(TritkitError, match=message):
        tritkit.export(net, path, images[:1], calibration=[images])
    assert path.read_bytes() == b"the older file"
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_an_engine_that_disagrees_is_an_error(
    net: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = checking._onnxruntime
    monkeypatch.setattr(checking, "_onnxruntime", lambda *args: [y + np.float32(1e-6) for y in honest(*args)])
    with pytest.raises(TritkitError, match="ONNX Runtime and the simulation disagree by up to"):
        tritkit.export(net, tmp_path / "net.onnx", images[:1], calibration=[images])
    assert os.listdir(tmp_path) == []


def test_bad_targets_are_refused_before_the_work(
    net: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="is a folder"):
        tritkit.export(net, tmp_path, images)
    with pytest.raises(UserError, match="does not exist"):
        tritkit.export(net, tmp_path / "missing" / "net.onnx", images)
    with pytest.raises(UserError, match="flavour must be one of function, inlined, qdq"):
        tritkit.export(net, tmp_path / "net.onnx", images, flavour="tflite")
    with pytest.raises(UserError, match="JSON"):
        tritkit.export(net, tmp_path / "net.onnx", images, input_info={"mean": images})
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(UserError, match="cannot be written to"):
        tritkit.export(net, tmp_path / "net.onnx", images)
