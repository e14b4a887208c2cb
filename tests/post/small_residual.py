"""A small residual network, images for it, and what its file holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tritkit.inspection import read_weights


def images(count: int = 96, size: int = 12, seed: int = 0) -> Tensor:
    """Smooth random pictures [count, 3, size, size]."""
    rough = torch.randn(count, 3, size + 4, size + 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(rough, 5, stride=1) * 4


def multipliers(path: Path) -> set[int]:
    """Of all codes of all ternary layers in a file."""
    sides = [side for layer in read_weights(path) for side in (layer.plus, layer.minus) if side is not None]
    return {int(m) for side in sides for m in side.flat}


class _Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.down = nn.Conv2d(c_in, c_out, 1, stride) if stride > 1 else nn.Identity()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.relu2(y)  # type: ignore[no-any-return]


class Small(nn.Module):
    """3x3 convolutions of 8 and 16 channels with a shortcut of each kind; [N, 3, H, W] to [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.block1, self.block2 = _Block(8, 8, 1), _Block(8, 16, 2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.relu(self.norm(self.first(x)))))
        return self.linear(torch.flatten(self.pool(x), 1))  # type: ignore[no-any-return]


TERNARY = ["block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "block2.down"]
