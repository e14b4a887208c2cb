"""Data sets as tensors in memory, and their augmentation."""

from __future__ import annotations

from tritkit.data.augment import crop_and_flip, normalise
from tritkit.data.cifar10 import load_cifar10
from tritkit.data.download import download_cifar10
from tritkit.data.imageset import ImageSet
from tritkit.data.roots import find_file

__all__ = ["ImageSet", "crop_and_flip", "download_cifar10", "find_file", "load_cifar10", "normalise"]
