"""examples/c/classify.c: compiles without a warning, needs libtritkit alone, prints the logits that Python gets."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tritkit.runtime import Session, library_path
from tritkit.zoo import hub, sample

ROOT = Path(__file__).parents[2]
CC = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert CC, "there is no C compiler; install one (the library needs it too)"
    made = tmp_path_factory.mktemp("c") / "classify"
    folder = library_path().resolve().parent
    words = [CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", str(ROOT / "csrc" / "include")]
    words += [str(ROOT / "examples" / "c" / "classify.c"), "-L", str(folder), "-ltritkit", f"-Wl,-rpath,{folder}"]
    done = subprocess.run([*words, "-o", str(made)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return made


def _run(program: Path, *words: object) -> tuple[int, str, str]:
    done = subprocess.run([str(program), *map(str, words)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _images() -> np.ndarray:
    pixels = sample("test").images[::50].astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (pixels - mean) / std


def test_prints_the_logits_of_python(program: Path, tmp_path: Path) -> None:
    images, network = _images(), hub("resnet20-cifar10-ternary")
    images.astype("<f4").tofile(tmp_path / "images.f32")
    code, out, err = _run(program, network, tmp_path / "images.f32")
    assert (code, err) == (0, "")
    expected = np.asarray(Session(network).run(images))
    rows = [line.split() for line in out.splitlines()]
    assert [int(row[0]) for row in rows] == expected.argmax(1).tolist()
    assert np.array_equal(np.array([row[1:] for row in rows], np.float32), expected)


def test_links_libtritkit_alone(program: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    listed = subprocess.run(["readelf", "-d", str(program)], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].rstrip("]") for line in listed.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libtritkit.so", "libc.so.6", "libc.musl-x86_64.so.1"}
    assert "libtritkit.so" in needed


def test_mistakes_are_said(program: Path, tmp_path: Path) -> None:
    network, images = hub("resnet20-cifar10-ternary"), tmp_path / "images.f32"
    images.write_bytes(b"\0" * 100)
    for words, said in (
        ([], "usage"),
        ([network, tmp_path / "none"], "cannot be opened"),
        ([tmp_path / "none.onnx", images], "none.onnx"),
        ([network, images], "ends inside an image"),
    ):
        code, out, err = _run(program, *words)
        assert (code, out) == (1, "")
        assert said in err
