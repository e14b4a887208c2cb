"""TTQ's gradients against finite differences and against the scale invariance of batch norm, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tritkit.methods import TTQ, Method, TTQConstantSparsity
from tritkit.surgery import latent_of, ternarize_, ternarizer_of

METHODS = [TTQ(), TTQ(threshold=0.3, latent_gradient="straight-through"), TTQConstantSparsity(0.5)]


def layer_and_data(method: Method, wp: float, wn: float) -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 6, 3, bias=False).double()
    ternarize_(conv, method)
    ternarizer_of(conv).set_scales_(torch.tensor(wp), torch.tensor(wn))
    return conv, torch.randn(4, 3, 7, 7).double(), torch.randn(4, 6, 5, 5).double()


def smooth_loss(conv: nn.Conv2d, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (torch.tanh(conv(x)) * target).sum()


def normed_loss(conv: nn.Conv2d, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    y = functional.batch_norm(conv(x), None, None, training=True, eps=1e-12)
    return (torch.tanh(y) * target).sum()


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("side", ["scale_pos", "scale_neg"])
def test_scale_gradient_is_the_derivative(method: Method, side: str) -> None:
    conv, x, target = layer_and_data(method, 0.7, 1.3)
    smooth_loss(conv, x, target).backward()
    scale = getattr(ternarizer_of(conv), side)
    h = 1e-5
    with torch.no_grad():
        scale += h
        above = smooth_loss(conv, x, target)
        scale -= 2 * h
        below = smooth_loss(conv, x, target)
    numeric = float(above - below) / (2 * h)
    assert abs(numeric) > 1e-2  # the test could not fail otherwise
    assert float(scale.grad) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_batch_norm_makes_the_weighted_scale_gradients_cancel(method: Method) -> None:
    conv, x, target = layer_and_data(method, 0.7, 1.3)
    normed_loss(conv, x, target).backward()
    ternarizer = ternarizer_of(conv)
    plus = float(ternarizer.scale_pos.detach() * ternarizer.scale_pos.grad)
    minus = float(ternarizer.scale_neg.detach() * ternarizer.scale_neg.grad)
    assert abs(plus) > 1e-2
    assert abs(plus + minus) < 1e-8 * abs(plus)


def test_first_updates_are_equal_and_opposite_behind_batch_norm() -> None:
    conv, x, target = layer_and_data(TTQ(), 1.0, 1.0)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.01)
    normed_loss(conv, x, target).backward()
    optimizer.step()
    ternarizer = ternarizer_of(conv)
    rise, fall = float(ternarizer.scale_pos.detach() - 1), float(ternarizer.scale_neg.detach() - 1)
    assert abs(rise) > 1e-4
    assert rise == pytest.approx(-fall, rel=1e-7)


def test_latent_gradient_has_the_three_factors_of_eq_8() -> None:
    conv, x, target = layer_and_data(TTQ(threshold=0.3), 0.7, 1.3)
    weight = conv.weight.detach().requires_grad_()
    (torch.tanh(functional.conv2d(x, weight)) * target).sum().backward()
    smooth_loss(conv, x, target).backward()
    latent = latent_of(conv)
    ratio = latent.grad / weight.grad
    delta = 0.3 * float(latent.detach().abs().max())
    for mask, factor in ((latent > delta, 0.7), (latent.abs() <= delta, 1.0), (latent < -delta, 1.3)):
        assert mask.any()
        torch.testing.assert_close(ratio[mask], torch.full_like(ratio[mask], factor))


def test_no_gradient_through_the_threshold() -> None:
    latent = torch.tensor([[4.0, -1.0, 0.1]], requires_grad=True)
    TTQ(latent_gradient="straight-through").build(latent)(latent).backward(torch.tensor([[0.0, 1.0, 0.0]]))
    assert latent.grad.tolist() == [[0.0, 1.0, 0.0]]  # nothing at the largest weight, which sets Δ


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_scales_stay_positive_and_come_back(optimizer: type[torch.optim.Optimizer]) -> None:
    latent = torch.tensor([[1.0, -1.0]])
    ternarizer = TTQ().build(latent)
    run = optimizer(ternarizer.parameters(), lr=0.5)
    for _ in range(50):  # pull both scales towards −3, far below what is allowed
        run.zero_grad()
        (ternarizer(latent) - torch.tensor([[-3.0, 3.0]])).square().sum().backward()
        run.step()
        value = ternarizer.ternary(latent)
        assert float(value.scale_pos) > 0
        assert float(value.scale_neg) > 0
    for _ in range(50):
        run.zero_grad()
        (ternarizer(latent) - torch.tensor([[2.0, -1.0]])).square().sum().backward()
        run.step()
    assert float(ternarizer.scale_pos.detach()) > 0.5
    assert float(ternarizer.scale_neg.detach()) > 0.25


def test_frozen_scales_get_no_gradient() -> None:
    latent = torch.tensor([[1.0, -1.0]], requires_grad=True)
    ternarizer = TTQ().build(latent).requires_grad_(False)
    ternarizer(latent).sum().backward()
    assert ternarizer.scale_pos.grad is None
    assert latent.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("latent_gradient", ["paper", "straight-through"])
def test_an_infinite_gradient_stays_where_it_is(latent_gradient: str) -> None:
    latent = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True)
    ternarizer = TTQ(latent_gradient=latent_gradient).build(latent)
    ternarizer(latent).backward(torch.tensor([[2.0, float("inf"), 3.0]]))
    assert ternarizer.scale_pos.grad.tolist() == [2.0]
    assert ternarizer.scale_neg.grad.tolist() == [-float("inf")]
    assert latent.grad.tolist() == [[2.0, float("inf"), 3.0]]


def test_a_latent_changed_before_the_backward_pass_is_an_error() -> None:
    """The backward pass reads it again."""
    latent = torch.tensor([[1.0, -1.0]], requires_grad=True)
    loss = TTQ().build(latent)(latent).sum()
    with torch.no_grad():
        latent.neg_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_constant_sparsity_hits_the_share_exactly() -> None:
    weight = torch.randn(40, 25, generator=torch.Generator().manual_seed(0))
    for sparsity in (0.0, 0.25, 0.4, 0.999):
        zeros = int((TTQConstantSparsity(sparsity).project(weight).codes == 0).sum())
        assert zeros == round(sparsity * 1000)
