"""‖w − weight‖² / ‖w‖² of a million random weights: closed forms of three distributions, within 3 standard errors."""

from __future__ import annotations

from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import torch

from tritkit.methods import BWN, FGQ, TWN, Method, TWNExact

N = 1_000_000
KINDS = ["gaussian", "laplace", "uniform"]
MEAN = {"gaussian": sqrt(2 / pi), "laplace": 1.0, "uniform": 0.5}  # of |w|
SQUARE = {"gaussian": 1.0, "laplace": 2.0, "uniform": 1 / 3}  # mean w²


def sample(kind: str, rows: int) -> torch.Tensor:
    generator = np.random.default_rng(17)
    draw = {"gaussian": generator.standard_normal, "laplace": generator.laplace}
    shape = (rows, N // rows)
    return torch.from_numpy(draw[kind](size=shape) if kind in draw else generator.uniform(-1, 1, shape))


def error_left(method: Method, kind: str, rows: int = 4) -> tuple[float, float]:
    """The share and its standard error, that of a quotient of means. A scale of least squares adds nothing to it."""
    weight = sample(kind, rows)
    lost, square = (weight - method.project(weight).dequantize()).square(), weight.square()
    share = float(lost.mean() / square.mean())
    return share, float((lost - share * square).std() / square.mean()) / sqrt(N)


def twn_left(kind: str, factor: float) -> float:
    """1 − P(|w| > Δ) · E(|w| beyond Δ)² / E w² for Δ = factor · E|w|."""
    delta = factor * MEAN[kind]
    kept, mean = {
        "gaussian": lambda: (1 - erf(delta / sqrt(2)), sqrt(2 / pi) * exp(-delta * delta / 2)),
        "laplace": lambda: (exp(-delta), exp(-delta) * (delta + 1)),
        "uniform": lambda: (1 - delta, (1 - delta) * (1 + delta) / 2),
    }[kind]()  # P(|w| > Δ), E(|w|; |w| > Δ)
    return 1 - mean * mean / kept / SQUARE[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.7, 0.75])
def test_twn(kind: str, factor: float) -> None:
    share, error = error_left(TWN(threshold_factor=factor), kind)
    # Δ itself errs by less than 6e-4, and the slope of the share in it is below 0.05.
    assert abs(share - twn_left(kind, factor)) < 3 * error + 3e-5


def test_published_shares_of_twn() -> None:
    found = [round(twn_left(kind, factor), 4) for kind in ("gaussian", "laplace") for factor in (0.7, 0.75)]
    assert found == [0.1916, 0.1903, 0.2824, 0.2767]


@pytest.mark.parametrize(("kind", "factor"), [("gaussian", 0.767), ("laplace", 1.0), ("uniform", 2 / 3)])
def test_the_optimum(kind: str, factor: float) -> None:
    """Its threshold in units of E|w|, where TWN's share is least."""
    least = twn_left(kind, factor)
    assert least < min(twn_left(kind, 0.98 * factor), twn_left(kind, 1.02 * factor))
    for method in (TWNExact(), FGQ(group_size=N, group="kernels")):
        share, error = error_left(method, kind, rows=1)
        assert abs(share - least) < 3 * error + 1e-6  # 0.767 is rounded


@pytest.mark.parametrize(("kind", "expected"), [("gaussian", 1 - 2 / pi), ("laplace", 0.5), ("uniform", 0.25)])
def test_binary_weights(kind: str, expected: float) -> None:
    share, error = error_left(BWN(), kind)
    assert expected == pytest.approx(1 - MEAN[kind] ** 2 / SQUARE[kind])
    assert abs(share - expected) < 3 * error


def test_pairs_of_gaussian_weights() -> None:
    """Groups of two: with the angle θ of (|w₁|, |w₂|) to the nearer axis, evenly spread up to 45° and apart from the
    length, one weight is kept up to 22.5°, where sin² θ is left, and both beyond, where (1 − sin 2θ)/2 is.
    """
    share, error = error_left(FGQ(group_size=2), "gaussian", rows=N // 1000)
    assert abs(share - (1 / 2 - sqrt(2) / pi)) < 3 * sqrt(2) * error  # √2: the two errors of a pair go together
