"""TWN on the three distributions its rule was derived for, against their closed forms."""

from __future__ import annotations

from math import erf, exp, pi, sqrt

import pytest
import torch

from tritkit.methods import TWN

SAMPLES = 1_000_000


def sample(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    if kind == "gaussian":
        return torch.randn(1000, 1000, generator=generator)
    uniform = torch.rand(1000, 1000, generator=generator, dtype=torch.float64) * 2 - 1
    if kind == "uniform":
        return uniform.float()
    return (-uniform.sign() * torch.log1p(-uniform.abs())).float()  # Laplace, mean |w| = 1


def closed_form(kind: str, factor: float) -> tuple[float, float, float]:
    """Δ, α and the share of zeros."""
    if kind == "gaussian":
        delta = factor * sqrt(2 / pi)
        zeros = erf(delta / sqrt(2))
        return delta, sqrt(2 / pi) * exp(-delta * delta / 2) / (1 - zeros), zeros
    if kind == "uniform":
        return factor / 2, (1 + factor / 2) / 2, factor / 2
    return factor, factor + 1, 1 - exp(-factor)


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("factor", [0.7, 0.75])
def test_threshold_scale_and_zeros(kind: str, factor: float) -> None:
    weight = sample(kind)
    method = TWN(threshold_factor=factor)
    delta, alpha, zeros = closed_form(kind, factor)
    spread = float(weight.abs().std()) / sqrt(SAMPLES)  # standard error of mean|w|
    value = method.project(weight)
    kept = weight.abs()[value.codes != 0]
    assert abs(float(method.delta(weight)) - delta) < 3 * factor * spread
    # Both errors come from the sample beyond Δ and from the error of Δ itself; densities at Δ are below 1.
    assert abs((1 - value.density) - zeros) < 3 * (sqrt(zeros * (1 - zeros) / SAMPLES) + factor * spread)
    error = 3 * (float(kept.std()) / sqrt(kept.numel()) + factor * spread)
    assert abs(float(value.scale_pos) - alpha) < error


def test_published_gaussian_numbers() -> None:
    delta, alpha, zeros = closed_form("gaussian", 0.7)
    assert (round(delta, 3), round(alpha, 3), round(zeros, 3)) == (0.559, 1.184, 0.424)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_scale_is_the_least_squares_one(per: str) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2)).double()
    value = TWN(per=per).project(weight)
    codes = value.codes.double()
    best = (weight - value.scale_pos * codes).square().sum()
    for factor in (0.99, 1.01):
        assert (weight - factor * value.scale_pos * codes).square().sum() > best


def test_channels_are_independent() -> None:
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(2))
    whole = TWN(per="channel").project(weight)
    for row in range(4):
        alone = TWN(per="tensor").project(weight[row : row + 1])
        assert torch.equal(whole.codes[row], alone.codes[0])
        assert float(whole.scale_pos[row]) == pytest.approx(float(alone.scale_pos), rel=1e-6)
