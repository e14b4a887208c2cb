"""TGA: the closed form against integrals, samples and finite differences; what moves its thresholds and what cannot."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, erfc, exp, pi, sqrt

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tritkit.errors import UserError
from tritkit.methods import TGA, Method, TGAWindow
from tritkit.methods.tga import truncated_scale
from tritkit.surgery import latent_of, param_groups, ternarize_, ternarizer_of
from tritkit.train.network import layer_rows

SHAPES = [(0.0, 1.0, 0.0), (0.0, 1.0, 0.612), (0.0, 0.05, 0.01), (0.3, 1.0, 0.5), (-1.5, 0.7, 0.2), (0.2, 0.1, 1.0)]


def closed(delta: float, mean: float, std: float) -> float:
    return float(truncated_scale(*(torch.tensor(x, dtype=torch.float64) for x in (delta, mean, std))))


def tail_mean(low: float, mean: float, std: float) -> float:
    """E(w | w > low) for N(mean, std²) by the trapezoid rule on a fine grid."""
    w = np.linspace(low, max(low, mean) + 12 * std, 2_000_001)
    density = np.exp(-0.5 * ((w - mean) / std) ** 2 + 0.5 * (max(low - mean, 0) / std) ** 2)
    return float(np.trapezoid(w * density, w) / np.trapezoid(density, w))


@pytest.mark.parametrize(("mean", "std", "delta"), SHAPES)
def test_scale_is_the_mean_of_both_tails(mean: float, std: float, delta: float) -> None:
    integral = (tail_mean(delta, mean, std) + tail_mean(delta, -mean, std)) / 2
    assert closed(delta, mean, std) == pytest.approx(integral, rel=1e-9)


@pytest.mark.parametrize(("t", "scale", "slope"), [
    (0.25, 0.9636, 0.6876), (0.5, 1.1411, 0.7315), (0.612, 1.2240, 0.7491), (1.0, 1.5251, 0.8009),
])  # fmt: skip
def test_table_of_scale_and_slope(t: float, scale: float, slope: float) -> None:
    delta = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    found = truncated_scale(delta, torch.zeros(()).double(), torch.ones(()).double())
    found.backward()
    hazard = exp(-t * t / 2) / sqrt(2 * pi) / (erfc(t / sqrt(2)) / 2)
    assert float(found.detach()) == pytest.approx(hazard, rel=1e-14)
    assert float(delta.grad) == pytest.approx(hazard * (hazard - t), rel=1e-13)
    assert (hazard, hazard * (hazard - t)) == pytest.approx((scale, slope), abs=6e-5)


@pytest.mark.parametrize(("mean", "std", "delta"), SHAPES)
def test_slope_is_the_derivative(mean: float, std: float, delta: float) -> None:
    at = torch.tensor(delta, dtype=torch.float64, requires_grad=True)
    truncated_scale(at, torch.tensor(mean).double(), torch.tensor(std).double()).backward()
    h = 1e-5 * std
    mean, std = (float(torch.tensor(x)) for x in (mean, std))  # the float32 values that the line above used
    numeric = (closed(delta + h, mean, std) - closed(delta - h, mean, std)) / (2 * h)
    assert float(at.grad) == pytest.approx(numeric, rel=1e-7)


@pytest.mark.parametrize("threshold", [0.05, 0.12, 0.3])
def test_scale_of_gaussian_weights_is_their_mean_beyond_the_threshold(threshold: float) -> None:
    weight = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(5))
    value = TGA(threshold).project(weight)
    kept = weight.abs()[value.codes != 0]
    # The scale is a function of the sample's σ, which errs by σ/√(2n); the kept mean errs as means do.
    error = float(kept.std()) / sqrt(kept.numel()) + float(value.scale_pos) / sqrt(2 * weight.numel())
    assert abs(float(value.scale_pos) - float(kept.mean())) < 3 * error
    zeros = erf(threshold * float(weight.abs().max()) / sqrt(2))
    assert abs(1 - value.density - zeros) < 3 * sqrt(zeros * (1 - zeros) / weight.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [[1e-30] * 4, [1e30] * 4, [-3.0, -3.0], [1.0] * 99 + [1.001], [5.0, 0.0, 0.0]])
def test_extreme_weights_keep_finite_scales_and_gradients(values: list[float], dtype: torch.dtype) -> None:
    weight = torch.tensor([values], dtype=dtype, requires_grad=True)
    for method in (TGA(), TGAWindow()):
        for delta in (0.0, 1e-3, 0.99, 20.0):
            ternarizer = method.build(weight)
            with torch.no_grad():
                ternarizer.threshold.fill_(delta * max(map(abs, values)))
            out = ternarizer(weight)
            out.sum().backward()
            assert out.isfinite().all()
            assert ternarizer.threshold.grad.isfinite().all()
            assert ternarizer.ternary(weight).scale_pos.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(dtype: torch.dtype) -> None:
    weight = torch.randn(8, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    for method in (TGA(), TGAWindow()):
        ternarizer = method.build(weight)
        out = ternarizer(weight)
        out.sum().backward()
        assert out.dtype == ternarizer.threshold.grad.dtype == dtype
        assert torch.equal(out.float(), ternarizer.ternary(weight).dequantize())
        torch.testing.assert_close(out.float(), method.build(weight.float())(weight.float()), rtol=1e-2, atol=0)


def slope_of(function: Callable[[float], float], at: float, h: float) -> float:
    return (function(at + h) - function(at - h)) / (2 * h)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 8, 32, generator=generator, dtype=torch.float64).unbind()


@pytest.mark.parametrize("latent_gradient", ["corrected", "scaled"])
def test_gradients_of_the_layer(latent_gradient: str) -> None:
    weight, g = example()
    ternarizer = TGA(0.2, latent_gradient).build(weight)
    latent = weight.clone().requires_grad_()
    ternarizer(latent).backward(g)
    at = float(ternarizer.threshold.detach())

    def loss(delta: float) -> float:  # no weight lies within 1e-7 of Δ, so no code moves
        with torch.no_grad():
            ternarizer.threshold.fill_(delta)
            return float((ternarizer(weight) * g).sum())

    assert float(ternarizer.threshold.grad) == pytest.approx(slope_of(loss, at, 1e-7), rel=1e-6)
    scale = closed(at, float(weight.mean()), float(weight.std(correction=0)))
    torch.testing.assert_close(latent.grad, g if latent_gradient == "corrected" else scale * g)


def test_window_gradient_is_that_of_the_ramp() -> None:
    weight, g = example()
    ternarizer = TGAWindow(0.2, window=0.3).build(weight)
    ternarizer(weight).backward(g)
    mean, std = float(weight.mean()), float(weight.std(correction=0))
    at, half = float(ternarizer.threshold.detach()), 0.3 * std
    w, gradient = weight.numpy(), g.numpy()

    def ramp(delta: float) -> float:  # both effects of Δ apart: S with the codes of now, and the ramp with S of now
        codes = np.sign(w) * (np.abs(w) > at)
        ramps = np.sign(w) * np.clip((np.abs(w) - delta + half) / (2 * half), 0, 1)
        return float((gradient * (closed(delta, mean, std) * codes + closed(at, mean, std) * ramps)).sum())

    numeric = slope_of(ramp, at, 1e-7) / sqrt(w.size)
    assert float(ternarizer.threshold.grad) == pytest.approx(numeric, rel=1e-6)


def conv_gradient(
    method: Method, norm: bool, dtype: torch.dtype = torch.float64, half: bool = False
) -> tuple[float, float]:
    """dL/dΔ of one convolution, and Σ |g·codes| · dS/dΔ at most, which it would be without cancelling."""
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 6, 3, bias=False).to(dtype)
    ternarize_(conv, method)
    x, g = torch.randn(4, 3, 7, 7).to(dtype), torch.randn(4, 6, 5, 5).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        y = conv(x)
        if norm:
            y = functional.batch_norm(y, None, None, training=True, eps=1e-12)
    (torch.tanh(y) * g).sum().backward()
    return float(ternarizer_of(conv).threshold.grad), float(latent_of(conv).grad.abs().sum())


def test_batch_norm_stops_the_closed_form_and_not_the_window() -> None:
    for norm in (False, True):
        still, size = conv_gradient(TGA(0.2), norm)
        moved, _ = conv_gradient(TGAWindow(0.2, window=0.3), norm)
        assert (abs(still) < 1e-9 * size) is norm
        assert abs(moved) > 1e-3 * size


def test_bfloat16_leaves_a_remainder_behind_batch_norm() -> None:
    """What the docstring says of it: rounding, not the loss, then moves Δ."""
    for method in (TGA(0.05), TGA(0.2)):
        exact, size = conv_gradient(method, True, torch.float32)
        rounded, _ = conv_gradient(method, True, torch.float32, half=True)
        assert abs(exact) < 1e-6 * size
        assert abs(rounded) > 1e-5 * size


@pytest.mark.parametrize("method", [TGA(), TGAWindow()], ids=repr)
def test_rows_of_the_record_show_which_thresholds_moved(method: Method) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-9), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    ternarize_(net, method)
    optimizer = torch.optim.SGD(param_groups(net, lr=0.1, weight_decay=1e-2), momentum=0.9)
    before = {name: row["threshold"] for name, row in layer_rows(net).items()}
    x, y = torch.randn(16, 3, 6, 6), torch.arange(16) % 5
    for _ in range(5):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    moved = {name: abs(row["threshold"] / before[name] - 1) for name, row in layer_rows(net).items()}
    assert moved["4"] > 1e-3
    assert (moved["0"] > 1e-3) is isinstance(method, TGAWindow)


def test_a_threshold_below_zero_counts_by_its_magnitude_and_comes_back() -> None:
    weight = torch.tensor([[1.0, -1.0, 0.1]])
    ternarizer = TGA(0.2).build(weight)
    with torch.no_grad():
        ternarizer.threshold.fill_(-0.2)
    assert torch.equal(ternarizer(weight), TGA(0.2).build(weight)(weight))
    ternarizer(weight).backward(torch.tensor([[1.0, -1.0, 0.0]]))
    assert (
        float(ternarizer.threshold.grad) < 0
    )  # a larger S raises this loss, so the step raises the parameter, lowers Δ


def test_a_threshold_of_zero_still_learns() -> None:
    weight = torch.tensor([[1.0, -1.0, 0.1]])
    ternarizer = TGA(threshold=0.0).build(weight)
    ternarizer(weight).backward(torch.tensor([[1.0, -1.0, 0.0]]))
    assert float(ternarizer.threshold.grad) > 0.5


@pytest.mark.parametrize(("action", "message"), [
    (lambda: TGA(threshold=1.0), r"threshold must be in \[0, 1\), got 1.0"),
    (lambda: TGA(latent_gradient="paper"), "latent_gradient must be one of 'corrected', 'scaled', got 'paper'"),
    (lambda: TGAWindow(window=-0.1), r"window must be in \[0, inf\), got -0.1"),
    (lambda: TGAWindow(window=0.0), "window must be positive"),
    (lambda: TGA().build(torch.ones(2, 2)).set_scales_(torch.ones(1), torch.ones(1)), "they cannot be set"),
])  # fmt: skip
def test_mistakes_are_explained(action: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        action()
