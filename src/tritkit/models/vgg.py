"""VGG-16 with batch norm (Simonyan & Zisserman 2014, arXiv 1409.1556, configuration D) with torchvision's keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tritkit.errors import UserError

_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: max pool


class VGG(nn.Module):
    """Images [N, 3, 224, 224], float32, normalised, to logits [N, num_classes]. Build it with `vgg16`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = _features()
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))  # type: ignore[no-any-return]


def vgg16(num_classes: int = 1000) -> VGG:
    """VGG-16 with batch norm, He-initialised from torch's RNG. UserError for `num_classes` below 1."""
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}; it must be at least 1")
    net = VGG(num_classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _features() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in _LAYERS:
        if width == 0:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)
