"""`doctor`: finds each planted fault where it was planted, says nothing about healthy networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from planting import PLANTED, Planted, small_images

import tritkit
from tritkit.cli.app import run_app
from tritkit.diagnosis import FAULT, KINDS, diagnose
from tritkit.errors import ModelFileError, UserError
from tritkit.methods import BWN, FGQ, TTQ
from tritkit.models import build, load_float
from tritkit.post import FAITHFUL
from tritkit.train import make_recipe
from tritkit.zoo import hub, sample

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _images(count: int) -> np.ndarray:
    pixels = sample("test").images[:: 1000 // count][:count].astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return np.ascontiguousarray((pixels - mean) / std)


IMAGES = _images(32)


def _images_for(planted: Planted, path: Path) -> np.ndarray:
    if planted.place.startswith(("conv", "hidden")):
        side = tritkit.Session(path).inputs[0].shape[-1]
        assert side is not None
        return small_images(side).numpy()
    return IMAGES


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.kind)
def test_finds_what_was_planted(planted: Planted, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    planted.write(path)
    found = diagnose(path, _images_for(planted, path))
    assert (planted.kind, planted.place) in {(f.kind, f.place) for f in found.findings}
    assert {f.kind for f in found.findings} <= {planted.kind, *planted.with_it}
    assert found.healthy == (KINDS[planted.kind] != FAULT and all(f.severity != FAULT for f in found.findings))
    finding = next(f for f in found.findings if f.kind == planted.kind)
    assert finding.what and finding.cost and finding.fix  # noqa: PT018
    assert finding.numbers


def test_costs_are_those_of_the_plant(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    by_kind = {p.kind: p for p in PLANTED}
    by_kind["empty-filters"].write(path)
    (finding,) = diagnose(path).findings
    # layer3.0.conv1 has 64 filters of 288 weights; every third was emptied, one of the others was empty before
    assert finding.numbers["filters"] in (22, 23, 24)
    assert finding.numbers["bytes"] == finding.numbers["filters"] * 288 / 4
    by_kind["dead-layer"].write(path)
    (finding,) = diagnose(path).findings
    assert finding.numbers["density"] == 0


@pytest.mark.parametrize("images", [None, IMAGES])
def test_packaged_network_is_healthy(images: np.ndarray | None) -> None:
    report = diagnose(hub("resnet20-cifar10-ternary"), images)
    assert report.findings == ()
    assert report.healthy
    assert ("activations" in report.looked_at) == (images is not None)


def test_network_made_without_training_is_healthy(tmp_path: Path) -> None:
    net = build("cifar-resnet20")
    load_float(hub("resnet20-cifar10-float"), net)
    calibration = [torch.from_numpy(_images(250)[:128])]
    quantized = tritkit.quantize(net.eval(), FGQ(group_size=4), calibration, steps=FAITHFUL)
    tritkit.export(quantized, tmp_path / "net.onnx", calibration[0][:1], check=False)
    assert diagnose(tmp_path / "net.onnx", IMAGES).findings == ()


def test_binary_methods_are_dense_by_design(tmp_path: Path) -> None:
    net = build("cifar-resnet8").eval()
    tritkit.ternarize_(net, BWN(), exclude=["conv1", "linear"])
    example = torch.from_numpy(IMAGES[:16])
    tritkit.export(net, tmp_path / "net.onnx", example, calibration=[example], check=False)
    assert "dense-layer" not in {f.kind for f in diagnose(tmp_path / "net.onnx").findings}


def test_negative_scale_in_trained_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {"name": "t", "model": "cifar-resnet8", "dataset": "cifar10", "method": {"name": "ttq"}}
    net = build("cifar-resnet8")
    tritkit.ternarize_(net, TTQ(), exclude=list(make_recipe(values).exclude))
    path = tmp_path / "final.safetensors"
    safetensors.torch.save_file(net.state_dict(), path, {"recipe": json.dumps(values)})
    assert diagnose(path).findings == ()
    with torch.no_grad():
        net.layer2[0].conv1.parametrizations.weight[0].scale_neg.fill_(-0.03)
    safetensors.torch.save_file(net.state_dict(), path, {"recipe": json.dumps(values)})
    (finding,) = diagnose(path).findings
    assert (finding.kind, finding.place) == ("scale-sign", "layer2.0.conv1")
    assert "-0.03" in finding.what


# ---- the command


@pytest.fixture
def doctor(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_app(["doctor", *map(str, words)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_exit_codes_and_json(doctor: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    by_kind = {p.kind: p for p in PLANTED}
    path = tmp_path / "net.onnx"
    by_kind["dead-layer"].write(path)
    code, out, _ = doctor(path, "--data", "sample", "--json")
    facts = json.loads(out)
    assert code == 1
    assert facts["healthy"] is False
    assert [f["kind"] for f in facts["findings"]] == ["dead-layer"]
    code, out, _ = doctor(path)
    assert code == 1
    assert "1 fault;" in out
    assert max(map(len, out.replace(str(path), "").splitlines())) <= 80
    by_kind["int8-bytes"].write(path)
    code, out, _ = doctor(path)
    assert code == 0
    assert "healthy, but 1 waste of bytes or time" in out
    code, out, _ = doctor("resnet20-cifar10-ternary")
    assert code == 0
    assert "healthy; looked at weights" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.onnx"], "no file none.onnx"),
        (["--data", "sample"], "--data is for a model"),
        (["resnet20-cifar10-ternary", "--data", "/nowhere.npy"], "no image /nowhere.npy"),
        (["resnet20-cifar10-float", "--data", "sample"], "--data needs a network exported by tritkit"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], said: str, doctor: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = doctor(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_bad_files_and_images(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(hub("resnet20-cifar10-ternary").read_bytes()[:5000])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        diagnose(path)
    for wrong in (IMAGES[:0], IMAGES[:, :2], IMAGES.astype(np.float64)):
        with pytest.raises(UserError, match=r"takes float32 images \[N, 3, 32, 32\]"):
            diagnose(hub("resnet20-cifar10-ternary"), wrong)
    with pytest.raises(UserError, match="NaN"):
        diagnose(hub("resnet20-cifar10-ternary"), np.full_like(IMAGES, np.nan))
