"""Two processes with DistributedDataParallel train like one process on the whole batch, whatever the method.

Deep Compression (pruned, and with shared weights) and DoReFa's low-bit activations stand beside the methods.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tritkit.compress import BySparsity, prune_, share_
from tritkit.low_bit import dorefa_
from tritkit.methods import FGQ, TTQ, Residual, get, names
from tritkit.surgery import after_step_, param_groups, ternarize_

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo backend")
STEPS = 3
STATE = dict[str, Tensor]
BESIDE: dict[str, Callable[[nn.Module], object]] = {
    "ttq, straight-through": lambda net: ternarize_(net, TTQ(init="data", latent_gradient="straight-through")),
    "fgq, separate scales": lambda net: ternarize_(net, FGQ(group_size=2, scales="separate")),
    "residual of two": lambda net: ternarize_(net, Residual((0.05, 0.1))),
    "dorefa 2-2-32": lambda net: dorefa_(net, 2, 2, exclude=()),
    "dorefa 1-2-6": lambda net: dorefa_(net, 1, 2, 6, exclude=()),
    "pruned": lambda net: prune_(net, BySparsity(0.5)),
    "shared": lambda net: share_(net, 3, 3),
}
ALL = [*names(), *BESIDE]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    BESIDE[name](net) if name in BESIDE else ternarize_(net, get(name))
    return net


def train(net: nn.Module, x: Tensor) -> STATE:
    """The state after training. Codes that a method draws differ between the processes."""
    torch.manual_seed(hash(float(x[0, 0, 0, 0])))
    optimizer = torch.optim.SGD(param_groups(net, lr=0.05, weight_decay=1e-3, scale_lr=0.01), momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        after_step_(net)
    return {key.removeprefix("module."): value.clone() for key, value in net.state_dict().items()}


def batch() -> Tensor:
    return torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(4))


def worker(number: int, rank: int, folder: str) -> None:
    """Rank 0 or 1; `number` is the one `spawn` gives."""
    group = {"init_method": f"file://{folder}/store", "rank": rank, "world_size": 2, "timeout": timedelta(seconds=120)}
    dist.init_process_group("gloo", **group)
    try:
        part = batch().chunk(2)[rank]
        states = {name: train(DistributedDataParallel(network(name)), part) for name in ALL}
        torch.save(states, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, STATE]]:
    """What each of the two processes has at the end, by method. This one is the first: each more imports torch anew."""
    folder = tmp_path_factory.mktemp("ranks")
    other = torch.multiprocessing.spawn(worker, args=(1, str(folder)), nprocs=1, join=False)
    worker(0, 0, str(folder))
    other.join()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def draws(name: str) -> bool:
    """Whether training depends on the random state: codes that are drawn, or gradients with noise."""
    net, found = network(name), []
    for _ in range(2):
        net.zero_grad()
        net(batch()).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in net.parameters()])
    return not all(map(torch.equal, *found))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ALL)
def test_two_processes_train_like_one(name: str, ranks: list[dict[str, STATE]]) -> None:
    first, second = ranks[0][name], ranks[1][name]
    alone = train(network(name), batch())
    assert first.keys() == second.keys() == alone.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    for key, parameter in network(name).named_parameters():
        assert not torch.equal(first[key], parameter)
    if not draws(name):
        for key, value in alone.items():
            torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6)
