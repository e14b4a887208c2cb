"""Networks and images that ship with the package: `hub(name)` is a checked path, `sample(split)` the images.

The manifest beside the files says for each name: file, SHA-256, licence, source, and for a network its error.
"""

from __future__ import annotations

import hashlib
import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import TritkitError, UserError

_TILE, _ACROSS = 32, 40  # pixels, tiles in a row of the sample's sheets


class Sample(NamedTuple):
    """uint8 images [1000, 3, 32, 32] in 0..255, int64 labels [1000] in 0..9, and the classes' names."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def folder() -> Path:
    """Where the packaged files lie: $TRITKIT_ZOO, else inside the package."""
    named = os.environ.get("TRITKIT_ZOO")
    return Path(named) if named else Path(__file__).parent / "_zoo"


def manifest() -> dict[str, dict[str, Any]]:
    """What ships: name → facts (`file`, `sha256`, `bytes`, `licence`, `source`). TritkitError if it cannot be read."""
    path = folder() / "manifest.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(entries[name]) for name in sorted(entries)}
    except (OSError, ValueError, TypeError) as error:
        raise TritkitError(f"{path} cannot be read ({error}); reinstall tritkit") from error


def hub(name: str) -> Path:
    """The path of a packaged file, after its SHA-256 was compared with the manifest's.

    Names: "resnetD-cifar10-ternary" for D = 20, 32, 44, 56 (ONNX), "resnet20-cifar10-float" (safetensors), and the
    parts of `sample`.
    Raises UserError for another name, TritkitError if the file is missing or not the one that was packaged.
    """
    entries = manifest()
    if name not in entries:
        raise UserError(f"nothing called {name!r} ships with tritkit; {_near(name, list(entries))}")
    entry = entries[name]
    path = folder() / Path(str(entry.get("file"))).name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TritkitError(f"the packaged file {path} cannot be read ({error.strerror}); reinstall tritkit") from error
    if found != entry.get("sha256"):
        raise TritkitError(f"the packaged file {path} was changed (its SHA-256 is {found[:12]}…); reinstall tritkit")
    return path


def sample(split: Literal["test", "train"] = "test") -> Sample:
    """1,000 test or training images of CIFAR-10: the first 100 of each class, in the data set's order.

    Raises UserError for another split, TritkitError if Pillow or the files are missing or damaged.
    """
    if split not in ("test", "train"):
        raise UserError(f"split is {split!r}; allowed: 'test', 'train'")
    sheet, listed = hub(f"cifar10-sample-{split}"), hub("cifar10-sample-labels")
    try:
        facts = json.loads(listed.read_text(encoding="utf-8"))
        labels, classes = np.asarray(facts[split], np.int64), tuple(facts["classes"])
        return Sample(_tiles(_pixels(sheet), len(labels)), labels, classes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TritkitError(f"the packaged sample {sheet} cannot be read ({error}); reinstall tritkit") from error


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise TritkitError("the packaged images need Pillow; pip install 'tritkit[train]'") from error
    with Image.open(path, formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))


def _tiles(sheet: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Tile i stands at row 32·(i // 40), column 32·(i % 40)."""
    rows = -(-count // _ACROSS)
    tiles = sheet.reshape(rows, _TILE, _ACROSS, _TILE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, _TILE, _TILE)
    return np.ascontiguousarray(tiles[:count])


def _near(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(known)}"
