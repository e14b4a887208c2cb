"""Absmean against the paper's rounding, and on the distributions it meets."""

from __future__ import annotations

from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import torch

from tritkit.methods import TWN, AbsMean

N = 1_000_000


def test_codes_are_the_rounded_weights() -> None:
    weight = np.random.default_rng(5).standard_normal((64, 81))
    gamma = np.abs(weight).mean()
    value = AbsMean().project(torch.from_numpy(weight))
    assert np.array_equal(value.codes.numpy(), np.clip(np.rint(weight / gamma), -1, 1))
    assert float(value.scale_pos) == np.float32(gamma)


@pytest.mark.parametrize(
    ("kind", "gamma", "variance", "zeros", "residual"),
    [
        # variance: of |w|. Zeros and ‖w − weight‖² / ‖w‖² follow from γ/2 and E(|w| over |w| > γ/2).
        ("gaussian", sqrt(2 / pi), 1 - 2 / pi, erf(1 / sqrt(pi) / 2), 0.2634),
        ("laplace", 1.0, 1.0, 1 - exp(-0.5), 0.3935),
        ("uniform", 0.5, 1 / 12, 0.25, 0.0),
    ],
)
def test_scale_zeros_and_error(kind: str, gamma: float, variance: float, zeros: float, residual: float) -> None:
    generator = np.random.default_rng(7)
    draw = {"gaussian": generator.standard_normal, "laplace": generator.laplace, "uniform": None}[kind]
    weight = (draw(size=(1000, N // 1000)) if draw else generator.uniform(-1, 1, (1000, N // 1000))).astype(np.float32)
    value = AbsMean().project(torch.from_numpy(weight))
    spread = sqrt(variance / N)
    assert abs(float(value.scale_pos) - gamma) < 3 * spread
    # The share of zeros errs with the draw and with Δ = γ/2, where the density of |w| is at most 1.
    assert abs((1 - value.density) - zeros) < 3 * (sqrt(zeros * (1 - zeros) / N) + spread / 2)
    if residual:
        error = np.square(weight - value.dequantize().numpy()).sum() / np.square(weight).sum()
        assert error == pytest.approx(residual, abs=1e-3)


def test_is_not_the_least_squares_ternary_weight() -> None:
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    absmean, twn = (
        float((weight - method.project(weight).dequantize()).square().sum()) for method in (AbsMean(), TWN())
    )
    assert absmean > 1.3 * twn  # 0.2634 against 0.1916
