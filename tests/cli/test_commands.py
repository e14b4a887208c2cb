"""The commands around training: exit codes, one sentence for a mistake, JSON that equals the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tritkit.cli import training
from tritkit.cli.app import run_app
from tritkit.data import ImageSet
from tritkit.train import images

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["runn"], ["runn", "'run'"]),
        (["inspect"], ["file", "--help"]),
        (["inspect", "--nope", "x"], ["--nope"]),
        (["inspect", "missing.onnx"], ["missing.onnx"]),
        (["inspect", "."], ["folder"]),
        (["run", "missing.onnx", "x.png"], ["missing.onnx"]),
        (["run", "resnet20-cifar10-ternery", "x.png"], ["resnet20-cifar10-ternery"]),
        (["run", "cifar10-sample-tst", "x.png"], ["'cifar10-sample-test'"]),
        (["run", "missing.onnx", "x.png", "--top", "0"], ["top"]),
        (["run", "missing.onnx", "x.png", "--threads", "two"], ["--threads", "integer"]),
        (["methods", "tqq"], ["tqq", "'ttq'"]),
        (["recipes", "cp", "cifar10-resnet20-flaot", "x"], ["cifar10-resnet20-float"]),
        (["train", "cifar10-resnet20-flaot"], ["cifar10-resnet20-float"]),
        (["train", "my/own.toml"], ["my/own.toml"]),
        (["train", "cifar10-resnet20-float", "--set", "lr=fast"], ["lr", "fast"]),
        (["train", "cifar10-resnet20-float", "--set", "lrr=1"], ["lrr"]),
        (["train", "cifar10-resnet20-float", "--set", "epochs"], ["epochs"]),
        (["train", "cifar10-resnet20-float", "--data", "no/such/folder"], ["no/such/folder"]),
        (["export", "no/run", "-o", "x.onnx"], ["no/run"]),
        (["export", "checkpoint.pt", "-o", "x.onnx"], ["checkpoint.pt", "final.safetensors"]),
        (["export", "no/run"], ["--out"]),
        (["export", "no/run", "-o", "x.onnx", "--flavour", "vanilla"], ["vanilla", "qdq"]),
        (["demo", "--threads", "0"], ["threads"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words: list[str], hints: list[str], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*words)
    message = err.splitlines()[-1]  # `train` says first what it is about to do
    assert (code, out) == (2, "")
    assert message.startswith("tritkit: ")
    assert "Traceback" not in err
    for hint in hints:
        assert hint in message


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from tritkit.errors import UserError

    for words in (["--debug", "inspect", "nope.onnx"], ["inspect", "nope.onnx", "--debug"]):
        with pytest.raises(UserError):
            run_app(words)


def test_ctrl_c_is_130_and_a_failure_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(given: str) -> Path:
        raise KeyboardInterrupt

    def fail(given: str) -> Path:
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr(training, "find_recipe", stop)
    assert cli("train", "x") == (130, "", "tritkit: stopped\n")
    monkeypatch.setattr(training, "find_recipe", fail)
    code, out, err = cli("train", "x")
    assert (code, out) == (1, "")
    assert "an accident" in err
    assert "--debug" in err


def test_help_is_light() -> None:
    code = (
        "import sys; from tritkit.cli.app import run_app; run_app(['--help']); run_app(['run', '--help']);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'tritkit.methods'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("demo", "train", "eval", "export", "run", "inspect", "methods", "recipes", "doctor"):
        assert f"\n  {name} " in done.stdout


def test_without_typer_one_sentence_says_what_to_install() -> None:
    code = "import tritkit.cli as c; c.find_spec = lambda name: None if name == 'typer' else True;c.main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tritkit: the command line needs typer; pip install 'tritkit[train]'\n"


def test_methods(cli: Cli) -> None:
    code, out, _ = cli("methods", "--json")
    names = [row["name"] for row in json.loads(out)["methods"]]
    assert code == 0
    assert {"ttq", "twn"} <= set(names)
    _, table, _ = cli("methods")
    assert all(any(line.startswith(name) for line in table.splitlines()) for name in names)
    facts = json.loads(cli("methods", "ttq", "--json")[1])
    assert facts["parameters"]["threshold"] == 0.05
    assert "1612.01064" in facts["paper"]
    assert "dL/dWn" in cli("methods", "ttq")[1]


def test_methods_that_are_tables_of_a_recipe(cli: Cli) -> None:
    rows = json.loads(cli("methods", "--json")[1])["beside"]
    assert [row["name"] for row in rows] == ["deep-compression", "dorefa-low-bit"]
    assert rows[0]["parameters"]["bits_conv"] == 8
    assert rows[0]["parameters"]["share_epoch"] is None  # must be given
    assert rows[1]["parameters"] == {"weight_bits": 1, "activation_bits": 32, "gradient_bits": 32}
    table = cli("methods")[1]
    for row in rows:
        code, text, _ = cli("methods", row["name"])
        assert code == 0
        assert row["paper"] in text
        assert f"[{row['table']}]" in text
        assert any(line.startswith(row["name"]) for line in table.splitlines())


def test_recipes(cli: Cli, tmp_path: Path) -> None:
    rows = json.loads(cli("recipes", "ls", "--json")[1])["recipes"]
    assert rows
    for row in rows:
        target = tmp_path / f"{row['name']}.toml"
        assert cli("recipes", "cp", row["name"], tmp_path)[0] == 0
        assert target.read_bytes() == Path(row["path"]).read_bytes()
        assert tomllib.loads(target.read_text()).get("epochs") == row["epochs"]
    target.write_text("mine")
    code, _, err = cli("recipes", "cp", rows[-1]["name"], tmp_path)
    assert (code, target.read_text()) == (2, "mine")
    assert "exists" in err
    assert cli("recipes", "cp", rows[-1]["name"], target / "below" / "a.toml")[0] == 2


def test_doctor(cli: Cli) -> None:
    code, out, _ = cli("doctor", "--json")
    facts = json.loads(out)
    found = {check["name"]: check for check in facts["checks"]}
    assert code == (1 if facts["failed"] else 0)
    assert found["numpy"]["state"] == found["library"]["state"] == found["packaged files"]["state"] == "ok"
    assert found["torch"]["value"] == torch.__version__
    table = cli("doctor")[1]
    assert all(name in table for name in found)


def test_doctor_fails_for_a_library_that_does_not_load(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.so").write_text("no library")
    done = subprocess.run(
        [sys.executable, "-m", "tritkit", "doctor", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "TRITKIT_LIBRARY": str(tmp_path / "broken.so")},
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert done.returncode == 1
    assert facts["failed"] >= 1
    assert any("broken.so" in check["value"] for check in facts["checks"] if check["state"] == "fail")


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)

    def load(root: object, split: str) -> ImageSet:
        images = torch.randint(0, 256, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return ImageSet(images, torch.arange(64) % 10, tuple(str(k) for k in range(10)))

    monkeypatch.setattr(images, "load_cifar10", load)


RECIPE = """
model = "cifar-resnet8"
epochs = 1
batch_size = 32
exclude = ["conv1", "linear"]
schedule = {name = "cosine", warmup_epochs = 0}
method = {name = "ttq"}
"""


def test_train_export_eval(few_images: None, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    run, onnx = tmp_path / "run", tmp_path / "net.onnx"
    code, out, _ = cli("train", tmp_path / "tiny.toml", "--out", run, "--set", "lr=0.01", "--json")
    facts = json.loads(out)
    assert code == 0
    assert json.loads(Path(facts["record"]).read_text().splitlines()[0])["recipe"]["lr"] == 0.01
    assert cli("train", tmp_path / "tiny.toml", "--out", run, "--set", "lr=0.01", "--fresh")[0] == 2

    code, out, err = cli("export", run, "-o", onnx)  # no ranges for the activations yet
    assert (code, onnx.exists()) == (2, False)
    assert "--calibrate" in err
    code, out, _ = cli("export", run, "-o", onnx, "--calibrate", "sample", "--json")
    exported = json.loads(out)
    assert (code, exported["bytes"]) == (0, onnx.stat().st_size)
    assert "onnxruntime" in exported["same_bits_in"]

    before = onnx.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(facts["weights"]).read_bytes()[:5000])
    assert cli("export", damaged, "-o", onnx, "--calibrate", "sample")[0] == 2
    assert cli("export", run, "-o", onnx, "--calibrate", "no/such/folder")[0] == 2
    assert cli("export", run, "-o", onnx / "below.onnx", "--calibrate", "sample")[0] == 2
    assert onnx.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.safetensors", "net.onnx", "run", "tiny.toml"]

    for model in (facts["weights"], onnx):
        code, out, _ = cli("eval", model, "--data", "sample", "--json")
        assert code == 0
        assert json.loads(out)["images"] == 1000
    assert cli("eval", onnx, "--data", tmp_path / "nowhere")[0] == 2


@pytest.mark.parametrize("folder", ["tiny.toml/run", "/proc/none"])
def test_a_folder_that_cannot_be_written(few_images: None, cli: Cli, tmp_path: Path, folder: str) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    code, out, err = cli("train", tmp_path / "tiny.toml", "--out", tmp_path / folder)
    assert (code, out) == (2, "")
    assert "cannot write" in err
