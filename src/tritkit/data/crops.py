"""The papers' crops of photographs. Each computes the pixels of its crop only, whatever the size of the picture.

A crop takes an RGB picture and a generator and gives one of `size` x `size` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

Crop = Callable[[Image.Image, np.random.Generator], Image.Image]
_Box = tuple[float, float, float, float]  # left, top, right, bottom in the picture's pixels
_BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class CentreCrop:
    """The short side scaled to `short_side`, the middle `size` x `size` of that: evaluation. Draws nothing."""

    size: int = 224
    short_side: int = 256

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        width, height = _scaled(image, self.short_side)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return _resized(image, self.size, _box(image, (width, height), left, top, self.size))


@dataclass(frozen=True)
class RandomCrop:
    """The short side scaled to `short_side`, a random `size` x `size` of that, mirrored with probability ½
    (Krizhevsky et al. 2012; TTQ, section 5.2).
    """

    size: int = 224
    short_side: int = 256

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        width, height = _scaled(image, self.short_side)
        left, top = (int(random.integers(0, side - self.size + 1)) for side in (width, height))
        return _mirrored(_resized(image, self.size, _box(image, (width, height), left, top, self.size)), random)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of `area` of the picture, its sides' ratio log-uniform in `ratio`, scaled to `size` x `size`,
    mirrored with probability ½ (Szegedy et al. 2014, section 6). After ten parts that do not fit, the largest one in
    the middle.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        return _mirrored(_resized(image, self.size, self._part(image.width, image.height, random)), random)

    def _part(self, width: int, height: int, random: np.random.Generator) -> _Box:
        low, high = (math.log(ratio) for ratio in self.ratio)
        for _ in range(10):
            target = random.uniform(*self.area) * width * height
            ratio = math.exp(random.uniform(low, high))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
                return left, top, left + w, top + h
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + max(w, 1), top + max(h, 1)


def _scaled(image: Image.Image, short_side: int) -> tuple[int, int]:
    """Width and height of `image` with its short side scaled to `short_side`."""
    shorter = min(image.size)
    width, height = (max(side * short_side // shorter, short_side) for side in image.size)
    return width, height


def _box(image: Image.Image, scaled: tuple[int, int], left: int, top: int, size: int) -> _Box:
    """Where the crop of the scaled picture lies in the picture itself."""
    x, y = image.width / scaled[0], image.height / scaled[1]
    return left * x, top * y, min((left + size) * x, image.width), min((top + size) * y, image.height)


def _resized(image: Image.Image, size: int, box: _Box) -> Image.Image:
    return image.resize((size, size), _BILINEAR, box=box)


def _mirrored(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image
