"""The penalty on the share of non-zero weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import recipe, run
from torch import nn

from tritkit import methods
from tritkit.errors import UserError
from tritkit.methods import LSQ, TWN
from tritkit.surgery import freeze_codes_, latent_of, ternarize_, ternarizer_of
from tritkit.train.density import density_penalty
from tritkit.train.recipe import Density
from tritkit.train.record import read_record


def layer(weights: list[float], step: float) -> nn.Module:
    """A linear layer of ternary LSQ with these latents and Δ = step / 2."""
    net = nn.Sequential(nn.Linear(len(weights), 1, bias=False))
    ternarize_(net, LSQ())
    latent_of(net[0]).data = torch.tensor([weights])
    ternarizer_of(net[0]).set_scales_(torch.tensor(step), torch.tensor(step))  # type: ignore[union-attr]
    return net


def test_value_and_gradient_by_hand() -> None:
    net = layer([0.3, -0.6, 0.9, -1.2, 0.0], step=1.0)  # Δ = 0.5: three of five are not zero
    penalty = density_penalty(net, Density(target=0.2, weight=2.0))
    assert float(penalty.detach()) == pytest.approx(2 * (0.6 - 0.2))
    penalty.backward()
    slope = 2 / (2 * 0.5 * 5)  # weight / (2Δ · n), one layer
    assert latent_of(net[0]).grad[0].tolist() == pytest.approx([slope, -slope, slope, 0, 0])  # type: ignore[index]


def test_layers_count_alike() -> None:
    net = nn.Sequential(*layer([0.3, 0.9], 1.0), *layer([0.9, 0.9, 0.9, 0.9], 1.0))
    penalty = density_penalty(net, Density(target=0.5))
    assert float(penalty.detach()) == pytest.approx((0.5 + 1) / 2 - 0.5)
    penalty.backward()
    assert latent_of(net[1]).grad[0].tolist() == pytest.approx([1 / (4 * 2)] * 4)  # type: ignore[index]


def test_nothing_is_pulled_below_the_target() -> None:
    net = layer([0.3, -0.6], 1.0)
    density_penalty(net, Density(target=0.5)).backward()
    assert latent_of(net[0]).grad.tolist() == [[0, 0]]  # type: ignore[union-attr]


def test_frozen_codes_and_zero_thresholds_are_allowed() -> None:
    net = layer([0.3, -0.6], 1.0)
    freeze_codes_(net)
    assert not density_penalty(net, Density(target=0.1)).requires_grad
    zeros = nn.Sequential(nn.Linear(3, 1, bias=False))
    nn.init.zeros_(zeros[0].weight)  # type: ignore[arg-type]
    ternarize_(zeros, TWN())
    penalty = density_penalty(zeros, Density(target=0.1))
    penalty.backward()
    assert float(penalty.detach()) == 0
    assert latent_of(zeros[0]).grad.tolist() == [[0, 0, 0]]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(methods.REGISTRY))
def test_every_method_takes_it(name: str) -> None:
    net = nn.Sequential(nn.Linear(8, 4))
    ternarize_(net, methods.get(name))
    density_penalty(net, Density(target=0.1)).backward()
    assert latent_of(net[0]).grad.isfinite().all()  # type: ignore[union-attr]


def test_a_run_reaches_its_target(tmp_path: Path) -> None:
    found = []
    for name, density in (("without", None), ("with", {"target": 0.2, "weight": 50})):
        changes = {"method": {"name": "lsq"}, "density": density, "epochs": 4}
        layers = read_record(run(tmp_path / name, changes).record)[-1]["layers"].values()
        found.append(sum(row["density"] for row in layers) / len(layers))
    assert found[0] > 0.4
    assert found[1] < 0.25


def test_it_needs_a_method() -> None:
    with pytest.raises(UserError, match="set method too"):
        recipe(density={"target": 0.3})
    with pytest.raises(UserError, match=r"density\.target"):
        recipe(density={"target": 0}, method={"name": "ttq"})
