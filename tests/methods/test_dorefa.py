"""DoReFa's weights of more than one bit: levels by hand, gradients by differences, and the refusal to be ternary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tritkit.errors import UnsupportedError, UserError
from tritkit.methods import DoReFa
from tritkit.surgery import named_ternary, strip_, ternarize_, ternary_layers

REASON = r"DoReFa weights of 2 bits have 4 levels and no zero; only those of 1 bit are ternary"


def test_two_bits_by_hand() -> None:
    # tanh(w) / max: 1, 0.5, −0.25, −1  →  in [0, 1]: 1, 0.75, 0.375, 0  →  times 3: 3, 2.25, 1.125, 0
    latent = torch.tensor([[math.atanh(0.8), math.atanh(0.4)], [-math.atanh(0.2), -math.atanh(0.8)]])
    weight = DoReFa(weight_bits=2).build(latent)(latent)
    torch.testing.assert_close(weight, torch.tensor([[1.0, 1 / 3], [-1 / 3, -1.0]]))


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_levels_are_the_odd_multiples(bits: int) -> None:
    latent = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    found = DoReFa(weight_bits=bits).build(latent)(latent).double().unique()
    top = 2**bits - 1
    expected = torch.tensor([k / top for k in range(-top, top + 1, 2)]).double()
    assert len(expected) == 2**bits
    torch.testing.assert_close(found[(found[None] - expected[:, None]).abs().argmin(1)], expected, atol=2e-7, rtol=0)
    assert len(found) == 2**bits


def _smooth(w: np.ndarray, g: np.ndarray) -> float:
    """Σ g · weight without the rounding."""
    bounded = np.tanh(w)
    return float((g * bounded / np.abs(bounded).max()).sum())


def test_gradient_flows_through_tanh_and_maximum() -> None:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(3, 4, generator=generator).double().requires_grad_()
    g = torch.randn(3, 4, generator=generator).double()
    DoReFa(weight_bits=3).build(latent)(latent).backward(g)
    h = 1e-6
    for index in np.ndindex(3, 4):  # one of them holds the maximum
        up, down = latent.detach().numpy().copy(), latent.detach().numpy().copy()
        up[index] += h
        down[index] -= h
        numeric = (_smooth(up, g.numpy()) - _smooth(down, g.numpy())) / (2 * h)
        assert float(latent.grad[index]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_equal_maxima_share_the_gradient() -> None:
    # Both are the maximum: weight = t/max, dL/dt_1 = g_1/t − (g_1 + g_2)/(2t) = (g_1 − g_2)/(2t), times 1 − t².
    latent = torch.tensor([[0.5, 0.5]], requires_grad=True)
    DoReFa(weight_bits=2).build(latent)(latent).backward(torch.tensor([[3.0, 1.0]]))
    t = math.tanh(0.5)
    expected = (3 - 1) / (2 * t) * (1 - t * t)
    torch.testing.assert_close(latent.grad, torch.tensor([[expected, -expected]]))


def test_zero_weights_are_all_on_one_level() -> None:
    latent = torch.zeros(2, 3, requires_grad=True)
    weight = DoReFa(weight_bits=2).build(latent)(latent)
    torch.testing.assert_close(weight, torch.full((2, 3), 1 / 3))  # 1.5 of 3 rounds to even: 2/3 · 2 − 1
    weight.sum().backward()
    assert bool(latent.grad.isfinite().all())


@pytest.mark.parametrize("action", ["project", "ternary", "delta"])
def test_more_bits_say_why_they_are_not_ternary(action: str) -> None:
    method, weight = DoReFa(weight_bits=2), torch.randn(3, 4)
    assert method.why_not_ternary is not None
    ternarizer = method.build(weight)
    with pytest.raises(UnsupportedError, match=REASON):
        method.project(weight) if action == "project" else getattr(ternarizer, action)(weight)


def test_networks_leave_them_out_but_strip_them() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    ternarize_(net, DoReFa(weight_bits=2), include=["0"])
    ternarize_(net, DoReFa(), include=["1"])
    assert [name for name, _, _ in named_ternary(net)] == ["1"]
    assert list(ternary_layers(net)) == ["0", "1"]
    weight = net[0].weight.detach().clone()
    assert strip_(net) == ["0", "1"]
    assert torch.equal(net[0].weight.detach(), weight)


@pytest.mark.parametrize("bits", [0, 17, 32, -1, 2.0, True, "2", None])
def test_rejects_other_bits(bits: object) -> None:
    with pytest.raises(UserError, match="weight_bits must be an integer from 1 to 16, got "):
        DoReFa(weight_bits=bits)
