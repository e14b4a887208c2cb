"""`tritkit ternarize` on a tiny network and a handful of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from small_residual import images, multipliers

from tritkit.cli.app import run_app
from tritkit.cli.networks import load_float_network
from tritkit.models import build
from tritkit.runtime import Session

NORM = {"normalize_mean": "0.5,0.5,0.5", "normalize_std": "0.25,0.25,0.25"}
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_app([str(word) for word in words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float.safetensors, and images.npy for it."""
    folder = tmp_path_factory.mktemp("float")
    torch.manual_seed(0)
    tensors = build("cifar-resnet8").state_dict()
    safetensors.torch.save_file(tensors, folder / "float.safetensors", NORM)
    np.save(folder / "images.npy", images(20, 32).numpy())
    return folder


def test_from_float_weights_to_a_file_that_runs(files: Path, cli: Cli) -> None:
    out = files / "net.onnx"
    words = ("ternarize", files / "float.safetensors", "--calibrate", files / "images.npy", "-o", out)
    code, text, err = cli(*words, "--group-size", "16", "--faithful")
    assert (code, err) == (0, "")
    assert "ternary layers: 93.8 % of the multiplications removed" in text
    pictures = images(4, 32, seed=3).numpy()
    assert Session(out).run(pictures).shape == (4, 10)


def test_torchvision_s_files_are_taken(tmp_path: Path, cli: Cli) -> None:
    torch.manual_seed(0)
    wanted = build("resnet18", 7).state_dict()
    torch.save(wanted, tmp_path / "resnet18.pth")
    found = load_float_network(tmp_path / "resnet18.pth", None)
    assert (found.shape, len(found.classes)) == ((3, 224, 224), 7)
    assert found.norm == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert all(torch.equal(value, wanted[key]) for key, value in found.net.state_dict().items())
    torch.save(build("cifar-resnet8").state_dict(), tmp_path / "small.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "small.pth").read_bytes()[:1000])
    mistakes = {"small": "does not say how images are normalised", "cut": "no whole .pth", "no": "no weights"}
    for name, said in mistakes.items():
        code, _, err = cli("ternarize", tmp_path / f"{name}.pth", "--calibrate", "sample", "-o", tmp_path / "net.onnx")
        assert code == 2, err
        assert said in err


def test_json_has_the_counts(files: Path, cli: Cli) -> None:
    words = ("ternarize", files / "float.safetensors", "--calibrate", files / "images.npy", "-o", files / "x.onnx")
    code, text, _ = cli(*words, "--json", "--faithful", "--group-size", "channel", "--activations", "power-of-two")
    facts = json.loads(text)
    assert code == 0
    assert facts["images"] == 20
    assert facts["bytes"] == (files / "x.onnx").stat().st_size
    assert facts["ternary"]["bits_a_weight"] == pytest.approx(2, abs=0.1)
    assert [row["kind"] for row in facts["layers"]] == ["int8", *["ternary"] * 6, "int8"]
    assert all(row["removed"] == 1 - 1 / (9 * row["weights"] // 9 // _outputs(row)) for row in facts["layers"][1:-1])


def test_excluded_layers_are_int8_and_multipliers_powers_of_two(files: Path, cli: Cli) -> None:
    words = ("ternarize", files / "float.safetensors", "--calibrate", files / "images.npy", "-o", files / "y.onnx")
    options = ("--exclude", "layer1.*", "--exclude", "layer3.0.conv2", "--multipliers", "power-of-two", "--faithful")
    code, text, err = cli(*words, *options, "--json")
    facts = json.loads(text)
    assert (code, err) == (0, "")
    kinds = {row["name"]: row["kind"] for row in facts["layers"]}
    left = [name for name, kind in kinds.items() if kind == "int8"]
    assert left == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer3.0.conv2", "linear"]
    assert (facts["excluded"], facts["multipliers"]) == (["layer1.*", "layer3.0.conv2"], "power-of-two")
    assert multipliers(files / "y.onnx") <= {1, 2, 4, 8, 16, 32, 64}
    mixed = cli(*words, "--group-size", "mixed:3", "--exclude", "layer1.*", "--multipliers", "power-of-two")
    assert (mixed[0], mixed[2]) == (0, "")
    assert multipliers(files / "y.onnx") <= {1, 2, 4, 8, 16, 32, 64}


def _outputs(row: dict[str, object]) -> int:
    return {"1": 16, "2": 32, "3": 64}[str(row["name"])[5]]


@pytest.mark.parametrize(
    ("change", "hints"),
    [
        ({"model": "missing.safetensors"}, ["missing.safetensors"]),
        ({"model": "text.safetensors"}, ["text.safetensors", "readable"]),
        ({"model": "other.safetensors"}, ["no known network", "tritkit.quantize"]),
        ({"model": "ternary.safetensors"}, ["ternary already"]),
        ({"--group-size": "0"}, ["group-size", "'0'"]),
        ({"--group-size": "four"}, ["'four'", "channel"]),
        ({"--exclude": "layer9"}, ["exclude: 'layer9'", "there are: conv1, layer1.0.conv1,", "linear"]),
        ({"--multipliers": "2"}, ["multipliers", "power-of-two"]),
        ({"--images": "3"}, ["images"]),
        ({"--architecture": "resnet21"}, ["resnet21"]),
        ({"--calibrate": "few.npy"}, ["2 images"]),
        ({"--calibrate": "nan.npy"}, ["NaN"]),
        ({"--calibrate": "small.npy"}, ["32, 32"]),
        ({"--calibrate": "constant.npy"}, ["same"]),
        ({"--calibrate": "no-folder"}, ["no-folder"]),
    ],
)
def test_a_mistake_is_one_sentence(change: dict[str, str], hints: list[str], files: Path, cli: Cli) -> None:
    _bad_files(files)
    options = {"model": "float.safetensors", "--calibrate": "images.npy", "--group-size": "4", **change}
    model = files / options.pop("model")
    options["--calibrate"] = str(files / options["--calibrate"])
    words = [word for pair in options.items() for word in pair]
    code, out, err = cli("ternarize", model, "-o", files / "bad.onnx", *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert all(hint in err for hint in hints), err
    assert not (files / "bad.onnx").exists()


def _bad_files(folder: Path) -> None:
    (folder / "text.safetensors").write_text("hello")
    safetensors.torch.save_file({"a.weight": torch.zeros(2, 2)}, folder / "other.safetensors", NORM)
    key = "conv1.parametrizations.weight.original"
    safetensors.torch.save_file({key: torch.zeros(2, 2)}, folder / "ternary.safetensors", NORM)
    np.save(folder / "few.npy", images(2, 32).numpy())
    np.save(folder / "nan.npy", np.full((20, 3, 32, 32), np.nan, np.float32))
    np.save(folder / "small.npy", images(20, 12).numpy())
    np.save(folder / "constant.npy", np.zeros((20, 3, 32, 32), np.float32))
