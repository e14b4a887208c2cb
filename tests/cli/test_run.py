"""`run` and `eval`: images are prepared as the file says, and bad ones are one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_example import CLASSES, MEAN, STD
from PIL import Image

from tritkit.runtime import Session

Cli = Callable[..., tuple[int, str, str]]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)


def _logits(net_file: Path) -> np.ndarray:
    mean, std = (np.array(v, np.float32)[None, :, None, None] for v in (MEAN, STD))
    return np.asarray(Session(net_file).run((PIXELS.astype(np.float32) / np.float32(255) - mean) / std))


def _rows(cli: Cli, *words: object) -> list[dict]:
    code, out, err = cli("run", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["images"]


def test_every_kind_of_file_gives_the_same_answer(net_file: Path, tmp_path: Path, cli: Cli) -> None:
    logits = _logits(net_file)
    np.save(tmp_path / "pixels.npy", PIXELS)
    np.savez(tmp_path / "pixels.npz", images=PIXELS, other=np.zeros(2))
    np.save(tmp_path / "hwc.npy", PIXELS[0].transpose(1, 2, 0))
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(tmp_path / "one.png")
    for name in ("pixels.npy", "pixels.npz"):
        rows = _rows(cli, net_file, tmp_path / name)
        assert [row["index"] for row in rows] == [0, 1, 2]
        assert [row["top"][0]["logit"] for row in rows] == logits.max(1).tolist()
    for name in ("one.png", "hwc.npy"):
        (row,) = _rows(cli, net_file, tmp_path / name, "--top", 10)
        assert [guess["class"] for guess in row["top"]] == np.argsort(-logits[0], kind="stable").tolist()
        assert [guess["name"] for guess in row["top"]] == [CLASSES[guess["class"]] for guess in row["top"]]
        assert sum(guess["probability"] for guess in row["top"]) == pytest.approx(1)


def test_the_table_names_the_best_class(net_file: Path, tmp_path: Path, cli: Cli) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS)
    code, out, err = cli("run", net_file, tmp_path / "pixels.npy", "--top", 1)
    assert (code, err) == (0, "")
    for line, best in zip(out.splitlines()[1:], _logits(net_file).argmax(1), strict=True):
        assert CLASSES[best] in line


def test_a_larger_picture_is_cut_to_size(net_file: Path, tmp_path: Path, cli: Cli) -> None:
    large = np.zeros((64, 96, 3), np.uint8)
    large[:, 16:80] = PIXELS[0].transpose(1, 2, 0).mean()  # what is left of it once cut to a square
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(np.full((32, 32, 3), large[0, 40, 0])).save(tmp_path / "plain.png")
    first, second = _rows(cli, net_file, tmp_path / "large.png", tmp_path / "plain.png")
    assert first["top"][0]["logit"] == pytest.approx(second["top"][0]["logit"], rel=0.2)


def test_needs_no_torch(net_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS)
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxruntime']))"
    words = ["run", str(net_file), str(tmp_path / "pixels.npy"), "--json"]
    code = f"{block}; from tritkit.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["images"]) == 3


def _bad_images(folder: Path) -> dict[str, Path]:
    good = np.zeros((1, 3, 32, 32), np.float32)
    for name, array in {
        "nan": np.full_like(good, np.nan),
        "infinite": np.full_like(good, np.inf),
        "overflow": np.full(good.shape, 1e300),
        "shape": np.zeros((1, 3, 31, 32), np.uint8),
        "rank": np.zeros((3,), np.float32),
        "empty": np.zeros((0, 3, 32, 32), np.uint8),
        "type": np.zeros((1, 3, 32, 32), np.int64),
        "complex": good.astype(np.complex64),
        "text": np.array(["a"]),
        "objects": np.array([{}], object),
    }.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "cut.npy").write_bytes((folder / "nan.npy").read_bytes()[:200])
    (folder / "garbage.npy").write_bytes(b"\x93NUMPY garbage")
    (folder / "zip.npz").write_bytes(b"PK\x03\x04 no archive")
    (folder / "text.png").write_text("no picture")
    (folder / "notes.txt").write_text("no picture")
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:700])
    np.savez(folder / "two.npz", a=good, b=good)
    return {path.name: path for path in folder.iterdir() if path.name != "whole.png"}


@pytest.mark.parametrize(
    "name",
    [
        "nan.npy",
        "infinite.npy",
        "overflow.npy",
        "shape.npy",
        "rank.npy",
        "empty.npy",
        "type.npy",
        "complex.npy",
        "text.npy",
        "objects.npy",
        "cut.npy",
        "garbage.npy",
        "zip.npz",
        "text.png",
        "notes.txt",
        "cut.png",
        "two.npz",
    ],
)
def test_bad_images_are_one_sentence(name: str, net_file: Path, tmp_path: Path, cli: Cli) -> None:
    path = _bad_images(tmp_path)[name]
    code, out, err = cli("run", net_file, path)
    assert (code, out) == (2, "")
    assert err.startswith("tritkit: ")
    assert str(path) in err
    assert err.count("\n") == 1


def test_bad_models_are_one_sentence(net_file: Path, tmp_path: Path, cli: Cli) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    data = net_file.read_bytes()
    for i, damaged in enumerate([b"", data[:1000], data[: len(data) // 2], b"\xff" * 500, b"{}"]):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(damaged)
        for command in (["run", path, tmp_path / "x.npy"], ["eval", path, "--data", "sample"]):
            code, out, err = cli(*command)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert err.startswith("tritkit: ")


def test_eval_on_the_packaged_sample(net_file: Path, cli: Cli) -> None:
    from tritkit.zoo import sample

    images, labels, _ = sample("test")
    mean, std = (np.array(v, np.float32)[None, :, None, None] for v in (MEAN, STD))
    logits = np.asarray(Session(net_file).run((images.astype(np.float32) / np.float32(255) - mean) / std))
    code, out, _ = cli("eval", net_file, "--data", "sample", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["wrong"] == int((logits.argmax(1) != labels).sum())
    assert (facts["images"], facts["error"]) == (1000, facts["wrong"] / 1000)
