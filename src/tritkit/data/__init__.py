"""Data sets as tensors in memory or folders of pictures, and their augmentation."""

from __future__ import annotations

from tritkit.data.augment import crop_and_flip, cutmix, normalise
from tritkit.data.cifar10 import load_cifar10
from tritkit.data.crops import CentreCrop, RandomCrop, RandomResizedCrop
from tritkit.data.download import download_cifar10
from tritkit.data.image_folder import ImageFolder, load_image_folder
from tritkit.data.imageset import ImageSet
from tritkit.data.loading import PictureBatch, PictureLoader
from tritkit.data.pictures import BadPicture, read_picture
from tritkit.data.roots import data_roots, find_file

__all__ = [
    "BadPicture",
    "CentreCrop",
    "ImageFolder",
    "ImageSet",
    "PictureBatch",
    "PictureLoader",
    "RandomCrop",
    "RandomResizedCrop",
    "crop_and_flip",
    "cutmix",
    "data_roots",
    "download_cifar10",
    "find_file",
    "load_cifar10",
    "load_image_folder",
    "normalise",
    "read_picture",
]
