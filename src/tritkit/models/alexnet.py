"""AlexNet with batch norm and without dropout, as TTQ and DoReFa-Net (arXiv 1606.06160) trained it.

    conv0 12x12/4, 96         224 -> 54
    conv1 5x5, 256, 2 groups  54, pool 3x3/2 -> 27
    conv2 3x3, 384            27, pool 3x3/2 -> 14
    conv3 3x3, 384, 2 groups  14
    conv4 3x3, 256, 2 groups  14, pool 3x3/2 -> 6
    fc0, fc1                  9,216 -> 4,096 -> 4,096
    fct                       4,096 -> classes

61 million weights; the papers keep conv0 and fct in float.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tritkit.errors import UserError


class AlexNet(nn.Module):
    """Images [N, 3, 224, 224], float32, normalised, to logits [N, num_classes]. Build it with `alexnet`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 96, 12, 4)
        self.relu0 = nn.ReLU()
        self.conv1 = nn.Conv2d(96, 256, 5, padding=2, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(256)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(256, 384, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(384)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 2, padding=1)
        self.conv3 = nn.Conv2d(384, 384, 3, padding=1, groups=2, bias=False)
        self.bn3 = nn.BatchNorm2d(384)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 256, 3, padding=1, groups=2, bias=False)
        self.bn4 = nn.BatchNorm2d(256)
        self.relu4 = nn.ReLU()
        self.pool4 = nn.MaxPool2d(3, 2)
        self.fc0 = nn.Linear(9216, 4096, bias=False)
        self.bnfc0 = nn.BatchNorm1d(4096)
        self.relufc0 = nn.ReLU()
        self.fc1 = nn.Linear(4096, 4096, bias=False)
        self.bnfc1 = nn.BatchNorm1d(4096)
        self.relufc1 = nn.ReLU()
        self.fct = nn.Linear(4096, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu0(self.conv0(x))
        x = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.pool4(self.relu4(self.bn4(self.conv4(x))))
        x = torch.flatten(x, 1)
        x = self.relufc0(self.bnfc0(self.fc0(x)))
        x = self.relufc1(self.bnfc1(self.fc1(x)))
        return self.fct(x)  # type: ignore[no-any-return]


def alexnet(num_classes: int = 1000) -> AlexNet:
    """AlexNet-BN, He-initialised from torch's RNG. UserError for `num_classes` below 1."""
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}; it must be at least 1")
    net = AlexNet(num_classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net
