"""The exact ternary optimum: against brute force, and on the distributions whose optimum is known in closed form."""

from __future__ import annotations

from itertools import product
from math import exp, sqrt

import numpy as np
import pytest
import torch

from tritkit.errors import UserError
from tritkit.methods import FGQ, TWN, TWNExact

N = 1_000_000


def least_error(w: np.ndarray) -> tuple[float, set[tuple[int, ...]]]:
    """The least ‖w − α·codes‖² over all 3^n codes with their best α, and all codes that reach it."""
    found = []
    for codes in product((-1, 0, 1), repeat=len(w)):
        c = np.array(codes)
        alpha = max(w @ c / max(c @ c, 1), 0.0)
        found.append((float(np.square(w - alpha * c).sum()), codes))
    best = min(error for error, _ in found)
    return best, {codes for error, codes in found if error <= best + 1e-12}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grid", [False, True])
def test_no_other_codes_are_closer(seed: int, grid: bool) -> None:
    generator = np.random.default_rng(seed)
    w = generator.integers(-4, 5, 7) / 4 if grid else generator.standard_normal(7)
    value = TWNExact().project(torch.tensor(w[None]))
    best, codes = least_error(w)
    assert tuple(value.codes[0].tolist()) in codes
    assert float(np.square(w - value.dequantize().double().numpy()[0]).sum()) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "delta", "zeros", "variance", "slope", "density", "residual"),
    [
        # Δ, share of zeros; then of |w| beyond Δ: variance, d mean/dΔ; density of |w| at Δ; ‖w − weight‖²/‖w‖².
        ("gaussian", 0.61200, 0.45946, 0.25094, 0.7491, 0.6616, 0.1902),
        ("laplace", 1.0, 1 - exp(-1), 1.0, 1.0, exp(-1), 0.2642),
        ("uniform", 1 / 3, 1 / 3, 1 / 27, 0.5, 1.0, 1 / 9),
    ],
)
def test_known_optima(
    kind: str, delta: float, zeros: float, variance: float, slope: float, density: float, residual: float
) -> None:
    generator = np.random.default_rng(13)
    draws = {"gaussian": generator.standard_normal, "laplace": generator.laplace}
    w = draws[kind](size=(1000, N // 1000)) if kind in draws else generator.uniform(-1, 1, (1000, N // 1000))
    weight = torch.from_numpy(w)
    value = TWNExact().project(weight)
    # α solves α = mean(|w| beyond α/2): an error of the mean comes back through Δ = α/2.
    error = sqrt(variance / (N * (1 - zeros))) / (1 - slope / 2)
    assert abs(float(value.scale_pos) - 2 * delta) < 3 * error
    assert abs(float(TWNExact().delta(weight)) - delta) < 3 * error / 2
    assert abs(1 - value.density - zeros) < 3 * (sqrt(zeros * (1 - zeros) / N) + density * error / 2)
    assert np.square(w - value.dequantize().numpy()).sum() / np.square(w).sum() == pytest.approx(residual, abs=1e-3)


def test_errors_of_the_rules_are_ordered() -> None:
    weight = torch.randn(300, 300, generator=torch.Generator().manual_seed(1))
    methods = TWNExact(), TWN(threshold_factor=0.75), TWN()
    exact, late, early = (float((weight - m.project(weight).dequantize()).square().sum()) for m in methods)
    assert exact < late < early


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30])
def test_size_does_not_matter(scale: float) -> None:
    weight = torch.randint(-50, 51, (6, 10), generator=torch.Generator().manual_seed(1)).float()
    expected, found = TWNExact("channel").project(weight), TWNExact("channel").project(weight * scale)
    assert torch.equal(found.codes, expected.codes)


def test_channels_are_independent_and_agree_with_whole_channel_groups() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    whole = TWNExact(per="channel").project(weight)
    groups = FGQ(group_size=3, group="kernels").project(weight)
    assert torch.equal(whole.codes, groups.codes)
    torch.testing.assert_close(whole.dequantize(), groups.dequantize())
    for row in range(4):
        alone = TWNExact(per="tensor").project(weight[row : row + 1])
        assert torch.equal(whole.codes[row], alone.codes[0])


def test_bad_granularity() -> None:
    with pytest.raises(UserError, match="per must be one of 'tensor', 'channel', got 'layer'"):
        TWNExact(per="layer")
