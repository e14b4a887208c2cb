"""Networks as papers train them, with the state-dict keys of the published weights."""

from __future__ import annotations

import re

from torch import nn

from tritkit.errors import UserError
from tritkit.models.cifar_resnet import CifarResNet, cifar_resnet
from tritkit.models.weights import load_float

__all__ = ["CifarResNet", "build", "cifar_resnet", "load_float"]

_CIFAR_RESNET = re.compile(r"cifar-resnet(\d{1,4})")


def build(name: str, num_classes: int = 10) -> nn.Module:
    """The network called `name`: "cifar-resnetD" with D = 6n + 2, for example "cifar-resnet20".

    Raises UserError for a name that is not known.
    """
    match = _CIFAR_RESNET.fullmatch(name)
    if match is None:
        raise UserError(f"there is no model {name!r}; allowed: cifar-resnetD with D = 8, 14, 20, 32, 44, 56, …")
    return cifar_resnet(int(match[1]), num_classes)
