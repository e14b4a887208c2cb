"""LSQ and SEQ: gradients against finite differences of the surrogate they come from, in float64; starts and errors."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, pi, sqrt

import numpy as np
import pytest
import torch

from tritkit.errors import UserError
from tritkit.methods import LSQ, SEQ, Method

METHODS = [LSQ(), LSQ(per="channel"), SEQ(), SEQ(per="tensor")]


def quantize(w: np.ndarray, step: np.ndarray, method: Method, rounding: np.ndarray | None = None) -> np.ndarray:
    """The papers' formulas. A given `rounding` replaces round(x) − x: what remains is the smooth surrogate."""
    levels, clip = (1.0, 1.0) if isinstance(method, LSQ) else (1.5, 0.99)
    x = levels * np.clip(w / step, -clip, clip)
    if rounding is None:
        return step * np.rint(x) / levels
    return step * np.where(np.abs(w / step) < clip, x + rounding, np.rint(x)) / levels


def example(method: Method) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    w, g = generator.standard_normal((2, 5, 8))
    rows = 1 if method.per == "tensor" else 5
    return w, g, generator.uniform(0.6, 1.4, (rows, 1))


def run(method: Method, w: np.ndarray, g: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    latent = torch.tensor(w, requires_grad=True)
    ternarizer = method.build(latent)
    with torch.no_grad():
        ternarizer.step.copy_(torch.from_numpy(step).reshape(ternarizer.step.shape))
    weight = ternarizer(latent)
    weight.backward(torch.from_numpy(g))
    return weight.detach().numpy(), latent.grad.numpy(), ternarizer.step.grad.numpy()


def slope(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Central differences of a sum of elementwise functions, one for each element of `at`."""
    result = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        move = np.zeros_like(at)
        move[i] = h
        result[i] = (function(at + move).sum() - function(at - move).sum()) / (2 * h)
    return result


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_forward_is_the_papers(method: Method) -> None:
    w, g, step = example(method)
    np.testing.assert_allclose(run(method, w, g, step)[0], quantize(w, step, method), rtol=1e-14)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_gradients_are_those_of_the_surrogate(method: Method) -> None:
    w, g, step = example(method)
    levels, clip = (1.0, 1.0) if isinstance(method, LSQ) else (1.5, 0.99)
    x = levels * np.clip(w / step, -clip, clip)
    frozen = np.rint(x) - x
    _, latent_grad, step_grad = run(method, w, g, step)
    by_latent = slope(lambda at: g * quantize(at, step, method, frozen), w)
    by_step = slope(lambda at: g * quantize(w, at, method, frozen), step)
    assert (by_latent == 0).any()  # clipped weights
    np.testing.assert_allclose(latent_grad, by_latent, atol=1e-8)
    np.testing.assert_allclose(step_grad.reshape(step.shape), by_step / sqrt(w.size), rtol=1e-7)


@pytest.mark.parametrize("method", METHODS[:2], ids=repr)
def test_lsq_starts_at_twice_the_mean_magnitude(method: LSQ) -> None:
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    dims = (0, 1, 2, 3) if method.per == "tensor" else (1, 2, 3)
    expected = 2 * weight.abs().mean(dim=dims, keepdim=True)
    torch.testing.assert_close(method.build(weight).delta(weight).expand(8, 1, 1, 1), expected.expand(8, 1, 1, 1) / 2)


def test_lsq_starts_gaussian_weights_with_57_percent_zeros() -> None:
    weight = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(3))
    zeros = erf(1 / sqrt(pi))  # Δ = mean|w| = √(2/π) σ
    spread = sqrt((1 - 2 / pi) / weight.numel())
    error = sqrt(zeros * (1 - zeros) / weight.numel()) + spread  # of the draw, and of Δ where the density is below 1
    assert abs(1 - LSQ().project(weight).density - zeros) < 3 * error
    assert abs(float(LSQ().project(weight).scale_pos) - 2 * sqrt(2 / pi)) < 3 * 2 * spread


def test_seq_starts_at_the_largest_weight_of_each_channel() -> None:
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    value = SEQ().project(weight)
    top = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(value.scale_pos, 2 / 3 * top)
    assert torch.equal(value.codes != 0, weight.abs() > top / 3)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_scales_are_set_and_read_back(method: Method) -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    ternarizer = method.build(weight)
    shape = ternarizer.ternary(weight).scale_pos.shape
    wanted = torch.full(shape, 0.37)
    ternarizer.set_scales_(wanted, wanted)
    torch.testing.assert_close(ternarizer.ternary(weight).scale_pos, wanted)
    torch.testing.assert_close(ternarizer.delta(weight).reshape(shape), wanted / 2)
    with pytest.raises(UserError, match="one scale for both signs; they cannot be set apart"):
        ternarizer.set_scales_(wanted, 2 * wanted)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_step_pushed_past_zero_comes_back(method: Method) -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    ternarizer = method.build(weight)
    target = weight.sign() * 0.5
    with torch.no_grad():
        ternarizer.step.fill_(-0.01)
    optimizer = torch.optim.SGD(ternarizer.parameters(), lr=0.1, momentum=0.9)
    for _ in range(200):
        optimizer.zero_grad()
        (ternarizer(weight) - target).square().sum().backward()
        optimizer.step()
        value = ternarizer.ternary(weight)
        assert (value.scale_pos > 0).all()
    assert (value.scale_pos > 0.2).all()
    assert value.density > 0.5


def test_bad_granularity() -> None:
    for cls in (LSQ, SEQ):
        with pytest.raises(UserError, match="per must be one of 'tensor', 'channel', got 'layer'"):
            cls(per="layer")
