"""Two processes with DistributedDataParallel train like one process on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tritkit.methods import TTQ
from tritkit.surgery import param_groups, ternarize_

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo backend")
STEPS = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    ternarize_(net, TTQ())
    return net


def train(net: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(param_groups(net, lr=0.05, weight_decay=1e-3, scale_lr=0.01), momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def batch() -> torch.Tensor:
    return torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(4))


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        net = network()
        train(DistributedDataParallel(net), batch().chunk(2)[rank])
        torch.save(net.state_dict(), f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    alone = network()
    initial = {key: value.clone() for key, value in alone.state_dict().items()}
    train(alone, batch())
    for key, value in alone.state_dict().items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6)
        assert not torch.equal(value, initial[key])
