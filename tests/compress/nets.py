"""A network small enough to reason about, with every kind of tensor a file holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def tiny_net(seed: int = 0) -> nn.Sequential:
    """Images [N, 3, 6, 6] to 5 numbers; layers "0" (conv), "1" (batch norm), "3" (conv), "6" (linear)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)
    )


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(32, 3, 6, 6, generator=generator), torch.randint(0, 5, (32,), generator=generator)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """The last loss of `steps` steps on one batch."""
    x, y = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    return float(loss.detach())
