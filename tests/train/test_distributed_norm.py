"""Batch norm and percentiles over two processes, against PyTorch's own on the whole batch in one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tritkit.observers import Percentile
from tritkit.train.synchronised import GlobalPercentile, separate_, synchronise_

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo backend")
Result = dict[str, Tensor]
SHAPES = {"images": (8, 3, 5, 4), "vectors": (8, 3), "one value": (2, 3)}


def norm_of(x: Tensor, momentum: float | None) -> nn.Module:
    torch.manual_seed(1)
    norm = (nn.BatchNorm2d if x.dim() == 4 else nn.BatchNorm1d)(x.shape[1], momentum=momentum)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    return norm


def inputs(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator) * 3 + 100  # where E x² − (E x)² would lose its digits


def steps(norm: nn.Module, x: Tensor) -> Result:
    """Two steps in training and one in evaluation; gradients of Σ y³, which no symmetry makes zero."""
    x = x.clone().requires_grad_()
    for _ in range(2):
        y = norm(x)
        y.pow(3).sum().backward()
    state = {f"state {key}": value.clone() for key, value in norm.state_dict().items()}
    grads = {f"sum {name}": p.grad.clone() for name, p in norm.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {**state, **grads, "part y": y.detach(), "part dx": x.grad, "part eval": norm.eval()(x).detach()}


def worker(number: int, rank: int, folder: str) -> None:
    group = {"init_method": f"file://{folder}/store", "rank": rank, "world_size": 2, "timeout": timedelta(seconds=120)}
    dist.init_process_group("gloo", **group)  # type: ignore[arg-type]
    try:
        found: dict[str, Result] = {}
        for name, shape in SHAPES.items():
            x = inputs(shape)
            for momentum in (0.1, None):
                norm = norm_of(x, momentum)
                synchronise_(norm)
                found[f"{name} {momentum}"] = steps(norm, x.chunk(2)[rank])
        norm = norm_of(inputs(SHAPES["images"]), 0.1)
        synchronise_(norm)
        separate_(norm)
        found["separate"] = steps(norm, inputs(SHAPES["images"]).chunk(2)[rank])
        for count in (7, 40_000, 100_001):
            values = torch.randn(2 * count, generator=torch.Generator().manual_seed(count)).chunk(2)[rank]
            found[f"range {count}"] = {"ends": torch.tensor(GlobalPercentile(99).batch_range(values))}
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    other = torch.multiprocessing.spawn(worker, args=(1, str(folder)), nprocs=1, join=False)
    worker(0, 0, str(folder))
    other.join()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("name", SHAPES)
def test_norms_are_those_of_the_whole_batch(name: str, momentum: float | None, ranks: list[dict[str, Result]]) -> None:
    x = inputs(SHAPES[name])
    alone = steps(norm_of(x, momentum), x)
    first, second = (rank[f"{name} {momentum}"] for rank in ranks)
    for key, value in alone.items():
        kind = key.split()[0]
        if kind == "state":
            assert torch.equal(first[key], second[key])
        together = {"part": lambda a, b: torch.cat([a, b]), "sum": torch.add, "state": lambda a, b: a}[kind]
        got = together(first[key], second[key])
        torch.testing.assert_close(got, value, rtol=2e-4, atol=2e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_separated_norms_see_their_own_batch(ranks: list[dict[str, Result]]) -> None:
    x = inputs(SHAPES["images"])
    for part, found in zip(x.chunk(2), ranks, strict=True):
        for key, value in steps(norm_of(x, 0.1), part).items():
            assert torch.equal(found["separate"][key], value)


@pytest.mark.parametrize("count", [7, 40_000, 100_001])
def test_percentiles_are_those_of_one_process(count: int, ranks: list[dict[str, Result]]) -> None:
    values = torch.randn(2 * count, generator=torch.Generator().manual_seed(count))
    expected = torch.tensor(Percentile(99).batch_range(values))
    for found in ranks:
        assert torch.equal(found[f"range {count}"]["ends"], expected)
