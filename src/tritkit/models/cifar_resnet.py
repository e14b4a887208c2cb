"""The CIFAR ResNets of He et al. 2015 (arXiv 1512.03385, section 4.2): depth 6n + 2, 16/32/64 channels.

Post-activation blocks, 3x3 convolutions without bias, and the paper's option-A shortcut where the shape changes:
every second pixel, zero channels on both sides. It has no parameters, and a ternary network keeps it exact.
The network traces with `torch.fx.symbolic_trace` and `torch.export`: each ReLU is a module of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tritkit.errors import UserError


class _Block(nn.Module):
    """relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x)))))); x [N, c_in, H, W] gives [N, c_out, H/stride, W/stride]."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu2 = nn.ReLU()
        self.stride = stride
        self.extra_channels = c_out - c_in  # split evenly before and after those of x

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self._shortcut(x))  # type: ignore[no-any-return]

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.extra_channels == 0:
            return x
        half = self.extra_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


class CifarResNet(nn.Module):
    """Images [N, 3, 32, 32], float32, normalised, to logits [N, num_classes]. Build it with `cifar_resnet`."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


def cifar_resnet(depth: int, num_classes: int = 10) -> CifarResNet:
    """A CIFAR ResNet of `depth` = 6n + 2 weighted layers (20, 32, 44, 56, …), He-initialised from torch's RNG.

    Raises UserError if `depth` is not 8, 14, 20, … or `num_classes` is below 1.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"depth {depth} is no CIFAR ResNet; allowed: 6n + 2 with n >= 1, such as 8, 20, 32, 44, 56")
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}; it must be at least 1")
    return CifarResNet((depth - 2) // 6, num_classes)


def _stage(c_in: int, c_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(c_in, c_out, stride)
    return nn.Sequential(first, *(_Block(c_out, c_out, 1) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
