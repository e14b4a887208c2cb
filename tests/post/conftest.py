"""Fixtures of a small residual network and its images."""

from __future__ import annotations

import pytest
import torch
from small_residual import Small, images
from torch import Tensor, nn


@pytest.fixture
def pictures() -> Tensor:
    return images()


@pytest.fixture(scope="session")
def small_net() -> nn.Module:
    """Its batch norms have seen the pictures."""
    torch.manual_seed(0)
    net = Small()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        net.train()(images(64))
    return net.eval()
