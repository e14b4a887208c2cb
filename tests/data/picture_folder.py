"""A small folder of pictures in ImageNet's layout, made by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    """RGB, smooth, so that JPEG keeps it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make_folder(root: Path, classes: int = 3, each: int = 4, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """`root`/train/class0/0.jpg and so on."""
    for split in splits or ("",):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for k in range(each):
                noise(100 * label + k, 60 + k).save(folder / f"{k}.jpg", quality=95)
    return root
