"""From a folder of pictures to a network in every engine, by the commands that a user types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_folder import make_folder
from safetensors.torch import load_file

from tritkit.cli.app import run_app

RECIPE = """
dataset = "imagenet"
model = "cifar-resnet8"
classes = 3
image_size = 32
epochs = 6
batch_size = 6
lr = 0.05
precision = "float32"
crop = "resized"
bn_images = 12
held_out = 0
exclude = ["conv1", "linear"]
schedule = {name = "cosine", warmup_epochs = 1}
method = {name = "twn"}
activations = {from_epoch = 4, calibration_images = 12}
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line: exit code, its JSON (or text), what it said on standard error."""

    def run(*words: object) -> tuple[int, Any, str]:
        code = run_app([str(word) for word in words])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out.startswith("{") else said.out, said.err

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


def test_train_export_eval(call: Any, recipe: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, out, onnx = make_folder(tmp_path / "data"), tmp_path / "run", tmp_path / "net.onnx"
    code, trained, err = call("train", recipe, "--data", data, "-o", out, "--workers", 0, "--json")
    assert code == 0, err
    rows = [json.loads(line) for line in (out / "record.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "epoch"]
    assert losses[-1] < losses[0]
    assert trained["test_top5_error"] == rows[-1]["test_top5_error"] == 0  # three classes: five guesses are enough
    assert "trained_on_test" not in rows[-1]
    assert call("export", out, "-o", onnx, "--json")[0] == 0
    engines = {}
    for engine in ("session", "simulation", "onnxruntime"):
        code, found, err = call("eval", onnx, "--data", data, "--engine", engine, "--workers", 0, "--json")
        assert code == 0, err
        engines[engine] = {key: found[key] for key in ("images", "wrong", "wrong_in_5")}
    assert engines["session"] == engines["simulation"] == engines["onnxruntime"]
    assert engines["session"]["images"] == 12
    code, found, _ = call("eval", out / "final.safetensors", "--data", data, "--workers", 0, "--json")
    assert (code, found["error"]) == (0, trained["test_error"])
    code, seen, err = call("run", onnx, data / "val/class1/0.jpg", "--json")
    assert code == 0, err
    assert {guess["name"] for guess in seen["images"][0]["top"]} == {"class0", "class1", "class2"}


def test_a_run_goes_on_to_the_same_bits(
    call: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle of an epoch, and whatever the number of workers."""
    from tritkit.train import loop

    data = make_folder(tmp_path / "data", splits=())
    changes = ("--set", "epochs=2", "--set", "activations=none", "--set", "checkpoint_every=1", "--json")
    assert call("train", recipe, "--data", data, "-o", tmp_path / "whole", "--workers", 0, *changes)[0] == 0
    plain = loop._Run._step

    def failing(run: loop._Run, images: torch.Tensor, labels: torch.Tensor) -> None:
        if run.step == 1:
            raise KeyboardInterrupt
        plain(run, images, labels)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "_step", failing)
        assert call("train", recipe, "--data", data, "-o", tmp_path / "cut", "--workers", 0, *changes)[0] == 130
    code, facts, _ = call("train", recipe, "--data", data, "-o", tmp_path / "cut", "--workers", 2, *changes)
    assert (code, facts["trained_on_test"]) == (0, True)
    whole, cut = (load_file(tmp_path / name / "final.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_bad_pictures(call: Any, recipe: Path, tmp_path: Path) -> None:
    data, out = make_folder(tmp_path / "data"), tmp_path / "run"
    spoilt = data / "train/class2/1.jpg"
    spoilt.write_bytes(spoilt.read_bytes()[:300])
    (data / "val/class0/0.jpg").write_text("no picture")
    train = (
        "train",
        recipe,
        "--data",
        data,
        "-o",
        out,
        "--workers",
        0,
        "--set",
        "epochs=2",
        "--set",
        "activations=none",
    )
    code, _, err = call(*train)
    assert code == 2
    assert "1 bad entries" in err
    assert "class2/1.jpg cannot be read as a picture" in err
    code, _, err = call(*train, "--bad-pictures", "skip", "--json")
    assert code == 0, err
    rows = [json.loads(line) for line in (out / "record.jsonl").read_text().splitlines()]
    assert str(spoilt) in rows[1]["skipped"][0]
    assert rows[-1]["test_images"] == 11
    assert "class0/0.jpg" in rows[-1]["skipped"][-1]


def test_the_number_of_classes_must_fit(call: Any, recipe: Path, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", classes=2)
    code, _, err = call("train", recipe, "--data", data, "-o", tmp_path / "run")
    assert code == 2
    assert "has 2 classes, the network 3 outputs" in err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("dataset=cifar10", "image_size and crop are about folders of pictures"),
        ("adam={}", None),
        ("adam={eps=0}", "adam.eps is 0"),
        ("image_size=4", "image_size is 4"),
    ],
)
def test_recipes_that_contradict_themselves(
    call: Any, recipe: Path, tmp_path: Path, change: str, sentence: str | None
) -> None:
    data = make_folder(tmp_path / "data")
    words = ("train", recipe, "--data", data, "-o", tmp_path / "run", "--workers", 0, "--set", "epochs=1")
    code, _, err = call(*words, "--set", "activations=none", "--set", "schedule.warmup_epochs=0", "--set", change)
    assert code == (0 if sentence is None else 2), err
    assert (sentence or "") in err


def test_every_recipe_is_valid_and_names_layers_that_exist() -> None:
    from tritkit.cli.recipes import shipped
    from tritkit.models import build
    from tritkit.train import load_recipe

    found = {name: load_recipe(path) for name, path in shipped().items() if name.startswith("imagenet-")}
    assert len(found) >= 16
    for name, chosen in found.items():
        with torch.device("meta"):
            layers = dict(build(chosen.model).named_modules())
        ternary = chosen.method is not None or chosen.dorefa is not None
        assert not ternary or set(chosen.exclude) <= layers.keys(), name
        assert chosen.dataset == "imagenet"
        assert chosen.init is None or "#sha256=" in chosen.init
