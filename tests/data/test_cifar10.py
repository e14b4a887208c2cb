"""CIFAR-10: all layouts give the same images; hostile and broken files are refused with one sentence."""

from __future__ import annotations

import http.server
import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch

from tritkit.data import ImageSet, download_cifar10, find_file, load_cifar10
from tritkit.data.plain_pickle import load_plain
from tritkit.errors import UserError

_N = 10_000


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """[10000, 3072] uint8, planes as in the binary layout."""
    return np.random.default_rng(0).integers(0, 256, (_N, 3072), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels() -> list[int]:
    return (np.arange(_N) * 7 % 10).tolist()


def _write_binary(folder: Path, pixels: np.ndarray, labels: list[int]) -> None:
    folder.mkdir()
    with (folder / "test_batch.bin").open("wb") as out:
        for label, row in zip(labels, pixels, strict=True):
            out.write(bytes([label]) + row.tobytes())


def test_binary_layout(tmp_path: Path, pixels: np.ndarray, labels: list[int]) -> None:
    _write_binary(tmp_path / "cifar-10-batches-bin", pixels, labels)
    images = load_cifar10(tmp_path, "test")
    assert images.images.shape == (_N, 3, 32, 32)
    assert images.labels.tolist() == labels
    # record 1 is byte 3073 on: label, then red row by row; green starts 1024 later
    assert images.images[1, 0, 0, 5] == int(pixels[1, 5])
    assert images.images[1, 1, 2, 3] == int(pixels[1, 1024 + 2 * 32 + 3])
    assert images.classes[3] == "cat"
    assert torch.equal(load_cifar10(tmp_path / "cifar-10-batches-bin", "test").images, images.images)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_python_layout(tmp_path: Path, pixels: np.ndarray, labels: list[int], protocol: int) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {b"data": pixels, b"labels": labels, b"batch_label": b"testing batch 1 of 1", b"filenames": [b"a.png"] * _N}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    images = load_cifar10(tmp_path, "test")
    assert images.images.numpy().tobytes() == pixels.tobytes()
    assert images.labels.tolist() == labels


def test_sheet_layout(tmp_path: Path, labels: list[int]) -> None:
    from PIL import Image

    sheet = np.zeros((32 * 313, 1024, 3), np.uint8)
    sheet[32:64, 64:96] = (1, 2, 3)  # image 34
    Image.fromarray(sheet).save(tmp_path / "test_batch.webp", lossless=True)
    (tmp_path / "test_labels.json").write_text(json.dumps(labels))
    images = load_cifar10(tmp_path, "test").images
    assert images[34, :, 31, 0].tolist() == [1, 2, 3]
    assert int(images.sum()) == 6 * 1024


def test_the_real_data_is_the_real_data() -> None:
    roots = [Path(os.environ.get("TRITKIT_DATA", "/nowhere")), Path(__file__).resolve().parents[3] / "shared" / "data"]
    if not any((root / "cifar10").is_dir() for root in roots):
        pytest.skip("no CIFAR-10: set TRITKIT_DATA to the folder that holds cifar10/")
    images = load_cifar10(split="test")
    assert torch.bincount(images.labels).tolist() == [1000] * 10
    assert images.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # cat, ship, ship, airplane, frog, …


def test_truncated_binary(tmp_path: Path, pixels: np.ndarray, labels: list[int]) -> None:
    _write_binary(tmp_path / "cifar-10-batches-bin", pixels, labels)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="expected 30730000 bytes, found 30729999 bytes"):
        load_cifar10(tmp_path, "test")
    with pytest.raises(UserError, match=r"data_batch_1\.bin is not a whole .* found no file"):
        load_cifar10(tmp_path, "train")


def test_label_out_of_range(tmp_path: Path, pixels: np.ndarray, labels: list[int]) -> None:
    _write_binary(tmp_path / "cifar-10-batches-bin", pixels, [200, *labels[1:]])
    with pytest.raises(UserError, match=r"labels must lie in 0\.\.9; got 0\.\.200"):
        load_cifar10(tmp_path, "test")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CIFAR-10 in"):
        load_cifar10(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        load_cifar10(tmp_path / "absent")
    with pytest.raises(UserError, match="allowed: 'train', 'test'"):
        load_cifar10(tmp_path, "validation")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/pwned",)


class _EvilDtype:
    def __reduce__(self) -> tuple[object, tuple[str, bool, bool]]:
        return np.dtype, ("O8", False, True)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil"
    path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(UserError, match=r"asks for (posix|nt|os)\.system"):
        load_plain(path)
    path.write_bytes(b"cbuiltins\neval\n(V1+1\ntR.")
    with pytest.raises(UserError, match=r"asks for builtins\.eval"):
        load_plain(path)
    path.write_bytes(pickle.dumps(_EvilDtype()))
    with pytest.raises(UserError, match="only numbers are admitted"):
        load_plain(path)


def test_broken_pickles(tmp_path: Path, labels: list[int]) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    whole = pickle.dumps({b"data": np.zeros((_N, 3071), np.uint8), b"labels": labels})
    for content, sentence in [
        (whole[:1000], "not a whole pickle"),
        (b"", "not a whole pickle"),
        (whole, r"expected uint8 pixels \[10000, 3072\]"),
        (pickle.dumps([1]), "a dictionary"),
        (pickle.dumps({b"data": np.zeros((_N, 3072), np.uint8), b"labels": ["x"] * _N}), "whole numbers as labels"),
    ]:
        (folder / "test_batch").write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            load_cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "images must be uint8"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"labels must be int64 \[2\]"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([-1]), r"labels must lie in 0\.\.1"),
    ],
)
def test_image_sets_are_checked(images: torch.Tensor, labels: torch.Tensor, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ImageSet(images, labels, ("a", "b"))


def test_find_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").touch()
    monkeypatch.setenv("TRITKIT_DATA", str(tmp_path))
    assert find_file("deep/w.bin") == tmp_path / "deep" / "w.bin"
    with pytest.raises(UserError, match="no file deep/absent"):
        find_file("deep/absent")


# ---- download, from a server of our own ----------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def _publish(folder: Path, members: dict[str, bytes]) -> str:
    """Writes www/a.tar.gz; returns its MD5."""
    with tarfile.open(folder / "www" / "a.tar.gz", "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return md5((folder / "www" / "a.tar.gz").read_bytes(), usedforsecurity=False).hexdigest()


def test_download(tmp_path: Path, server: str) -> None:
    checksum = _publish(tmp_path, {"cifar-10-batches-bin/test_batch.bin": b"abc"})
    seen: list[tuple[int, int]] = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    folder = download_cifar10(tmp_path / "data", progress, f"{server}/a.tar.gz", checksum)
    assert (folder / "test_batch.bin").read_bytes() == b"abc"
    assert seen[-1][0] == seen[-1][1] > 0
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cifar-10-batches-bin"]  # nothing left over
    assert download_cifar10(tmp_path / "data", url="http://unused.invalid") == folder  # there already


def test_download_refuses(tmp_path: Path, server: str) -> None:
    with pytest.raises(UserError, match="cannot reach"):
        download_cifar10(tmp_path / "data", url=f"{server}/absent.tar.gz")
    checksum = _publish(tmp_path, {"cifar-10-batches-bin/../../evil": b"x"})
    with pytest.raises(UserError, match="unexpected file"):
        download_cifar10(tmp_path / "data", url=f"{server}/a.tar.gz", md5=checksum)
    with pytest.raises(UserError, match="has MD5"):
        download_cifar10(tmp_path / "data", url=f"{server}/a.tar.gz")
    assert not list((tmp_path / "data").iterdir())
    assert not (tmp_path / "evil").exists()
