"""Networks as papers train them, with the state-dict keys of the published weights."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from tritkit.errors import UserError
from tritkit.models.alexnet import AlexNet, alexnet
from tritkit.models.cifar_resnet import CifarResNet, cifar_resnet
from tritkit.models.download import fetch
from tritkit.models.resnet import ResNet, resnet
from tritkit.models.vgg import VGG, vgg16
from tritkit.models.weights import load_float, read_float

__all__ = [
    "VGG",
    "AlexNet",
    "CifarResNet",
    "ResNet",
    "alexnet",
    "build",
    "cifar_resnet",
    "fetch",
    "image_size",
    "load_float",
    "read_float",
    "resnet",
    "vgg16",
]

_CIFAR_RESNET = re.compile(r"cifar-resnet(\d{1,4})")
_IMAGENET: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": lambda classes: resnet(18, classes),
    "resnet34": lambda classes: resnet(34, classes),
    "resnet50": lambda classes: resnet(50, classes),
    "resnet101": lambda classes: resnet(101, classes),
    "alexnet-bn": alexnet,
    "vgg16-bn": vgg16,
}


def build(name: str, num_classes: int | None = None) -> nn.Module:
    """The network called `name`, randomly initialised: "cifar-resnetD" with D = 6n + 2, for example "cifar-resnet20"
    (32x32 images, 10 classes unless given), or one for ImageNet's 224x224 images and 1,000 classes: "resnet18",
    "resnet34", "resnet50", "resnet101", "alexnet-bn", "vgg16-bn".

    Raises UserError for a name that is not known.
    """
    if name in _IMAGENET:
        return _IMAGENET[name](1000 if num_classes is None else num_classes)
    match = _CIFAR_RESNET.fullmatch(name)
    if match is None:
        known = f"cifar-resnetD with D = 8, 14, 20, 32, 44, 56, …; {', '.join(_IMAGENET)}"
        raise UserError(f"there is no model {name!r}; allowed: {known}")
    return cifar_resnet(int(match[1]), 10 if num_classes is None else num_classes)


def image_size(name: str) -> int:
    """Height and width of the images of `build(name)`, in pixels."""
    return 224 if name in _IMAGENET else 32
