"""Makes the packaged sample of CIFAR-10: the first 100 images of each class of the test and of the training set.

    python scripts/make_sample.py [--data DIR] [--dest src/tritkit/_zoo]

Writes two lossless sheets of 40 tiles a row, their labels, and these three rows of manifest.json.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
from manifest import add_entry
from numpy.typing import NDArray
from PIL import Image

from tritkit.data import load_cifar10

PER_CLASS, ACROSS = 100, 40
SOURCE = (
    "CIFAR-10, https://www.cs.toronto.edu/~kriz/cifar.html; "
    "Alex Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
)
LICENCE = "none stated; the data set is published for research with the request to cite the report"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="folder of CIFAR-10; default: where tritkit finds it")
    parser.add_argument("--dest", type=Path, default=Path("src/tritkit/_zoo"))
    options = parser.parse_args()
    labels: dict[str, list[int] | list[str]] = {}
    for split in ("test", "train"):
        images = load_cifar10(options.data, split)
        index = first_of_each(images.labels.numpy(), len(images.classes))
        labels[split], labels[f"{split}_index"] = images.labels.numpy()[index].tolist(), index.tolist()
        labels["classes"] = list(images.classes)
        add(options.dest, f"cifar10-sample-{split}", ".webp", webp(sheet(images.images.numpy()[index])))
    add(options.dest, "cifar10-sample-labels", ".json", (json.dumps(labels) + "\n").encode())


def first_of_each(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Indices of the first `PER_CLASS` images of each class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:PER_CLASS] for k in range(classes)]))


def sheet(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[N, 3, 32, 32] to one picture, 40 tiles a row."""
    rows = len(images) // ACROSS
    tiles = images.reshape(rows, ACROSS, 3, 32, 32).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(tiles.reshape(rows * 32, ACROSS * 32, 3))


def webp(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def add(dest: Path, name: str, suffix: str, data: bytes) -> None:
    add_entry(dest, name, suffix, data, licence=LICENCE, source=SOURCE, rule=f"first {PER_CLASS} images of each class")
    print(f"{name}{suffix}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
