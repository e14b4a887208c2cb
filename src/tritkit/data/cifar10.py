"""CIFAR-10 (Krizhevsky 2009) from any of its layouts: official binary, official python, lossless WebP sheets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tritkit.data.imageset import ImageSet
from tritkit.data.plain_pickle import load_plain
from tritkit.data.roots import data_roots
from tritkit.errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FILES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
_PER_FILE = 10_000
_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, green and blue planes

_Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [10000, 3, 32, 32], labels [10000]


def load_cifar10(root: str | Path | None = None, split: str = "train") -> ImageSet:
    """The 50,000 training or 10,000 test images, in the data set's order.

    `root` is a folder with cifar-10-batches-bin, cifar-10-batches-py or the WebP sheets in it (or one of those itself);
    None searches $TRITKIT_DATA, ./data/cifar10 and ../shared/data/cifar10. Raises UserError if nothing is found or a
    file is not whole.
    """
    if split not in _FILES:
        raise UserError(f"split is {split!r}; allowed: 'train', 'test'")
    folder, read = _layout(_candidates(root))
    batches = [read(folder, name) for name in _FILES[split]]
    images = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches])
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), CLASSES)


def has_cifar10(root: Path) -> bool:
    """Whether `load_cifar10` would read from the folder `root`; its files may still be damaged."""
    return root.is_dir() and _find(_candidates(root)) is not None


def _candidates(root: str | Path | None) -> list[Path]:
    bases = [Path(root)] if root is not None else data_roots()
    if root is not None and not bases[0].is_dir():
        raise UserError(f"no folder {root}; give the folder that holds CIFAR-10")
    return [base / sub for base in bases for sub in ("", "cifar10")]


def _find(folders: list[Path]) -> tuple[Path, Callable[[Path, str], _Batch]] | None:
    for folder in folders:
        for sub, marker, read in _LAYOUTS:
            for place in (folder / sub, folder):
                if (place / marker).is_file():
                    return place, read
    return None


def _layout(folders: list[Path]) -> tuple[Path, Callable[[Path, str], _Batch]]:
    found = _find(folders)
    if found is not None:
        return found
    looked = ", ".join(str(folder) for folder in folders[::2])
    raise UserError(
        f"no CIFAR-10 in {looked}; give its folder, set TRITKIT_DATA, or fetch it with tritkit.data.download_cifar10"
    )


def _read_binary(folder: Path, name: str) -> _Batch:
    path = folder / f"{name}.bin"
    size = path.stat().st_size if path.is_file() else None
    if size != _PER_FILE * _RECORD:
        raise _damaged(path, f"{_PER_FILE * _RECORD} bytes", f"{size} bytes" if size is not None else "no file")
    records = np.fromfile(path, np.uint8).reshape(_PER_FILE, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _read_python(folder: Path, name: str) -> _Batch:
    path = folder / name
    batch = load_plain(path)
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise _damaged(path, "a dictionary with b'data' and b'labels'", type(batch).__name__)
    data, labels = batch[b"data"], batch[b"labels"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (_PER_FILE, 3072):
        raise _damaged(path, f"uint8 pixels [{_PER_FILE}, 3072]", f"{getattr(data, 'shape', type(data).__name__)}")
    if not isinstance(labels, list) or len(labels) != _PER_FILE or not all(type(k) is int for k in labels):
        raise _damaged(path, f"a list of {_PER_FILE} whole numbers as labels", type(labels).__name__)
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, np.int64)


def _read_sheet(folder: Path, name: str) -> _Batch:
    """Tile i of the 1024-pixel-wide sheet stands at row 32·(i // 32), column 32·(i % 32)."""
    from PIL import Image, UnidentifiedImageError

    path = folder / f"{name}.webp"
    rows = -(-_PER_FILE // 32)
    try:
        with Image.open(path, formats=["WEBP"]) as sheet:
            if sheet.size != (1024, 32 * rows):
                raise _damaged(path, f"1024 x {32 * rows} pixels", f"{sheet.size[0]} x {sheet.size[1]}")
            pixels = np.asarray(sheet.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise _damaged(path, "a WebP image", str(error)) from error
    tiles = pixels.reshape(rows, 32, 32, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(tiles[:_PER_FILE]), _sheet_labels(folder, name)


def _sheet_labels(folder: Path, name: str) -> NDArray[np.int64]:
    split = "test" if name == "test_batch" else "train"
    path, total = folder / f"{split}_labels.json", _PER_FILE * len(_FILES[split])
    try:
        labels = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, "a JSON list of labels", str(error)) from error
    if not isinstance(labels, list) or len(labels) != total or not all(type(k) is int for k in labels):
        raise _damaged(path, f"a list of {total} whole numbers", f"{type(labels).__name__}")
    start = _PER_FILE * _FILES[split].index(name)
    return np.asarray(labels[start : start + _PER_FILE], np.int64)


def _damaged(path: Path, wanted: str, found: str) -> UserError:
    return UserError(f"{path} is not a whole CIFAR-10 file: expected {wanted}, found {found}; fetch it again")


_LAYOUTS = (  # folder, a file that marks the layout, reader
    ("cifar-10-batches-bin", "test_batch.bin", _read_binary),
    ("cifar-10-batches-py", "test_batch", _read_python),
    ("", "test_batch.webp", _read_sheet),
)
