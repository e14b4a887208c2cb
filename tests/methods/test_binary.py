"""BinaryConnect, TernaryConnect and BWN: the moments of drawn codes, the clip after a step, the derivative of α."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import tritkit
from tritkit.errors import UserError
from tritkit.methods import BWN, BinaryConnect, Method, TernaryConnect, get
from tritkit.surgery import after_step_, latent_of, ternarize_, ternarizer_of

CONNECTS = [BinaryConnect, TernaryConnect]
VALUES = [-1.0, -0.7, 0.0, 0.3, 1.0]  # mean |w| = 0.6
DRAWS = 100_000


def drawn(method: Method, seed: int = 0) -> torch.Tensor:
    """A training pass over DRAWS copies of each of VALUES, [5, DRAWS]."""
    latent = torch.tensor(VALUES)[:, None].repeat(1, DRAWS)
    ternarizer = method.build(latent)
    torch.manual_seed(seed)
    return ternarizer(latent)


@pytest.mark.parametrize(
    ("method", "h"),
    [
        (BinaryConnect(), 1.0),
        (BinaryConnect(scale="data"), 0.6),
        (TernaryConnect(), 1.0),
        (TernaryConnect(scale="data"), 0.9),
    ],
    ids=str,
)
def test_moments_of_the_draw(method: Method, h: float) -> None:
    weight = drawn(method).double()
    for w, row in zip(VALUES, weight, strict=True):
        mean = min(max(w, -h), h)
        variance = h * h - mean**2 if isinstance(method, BinaryConnect) else abs(mean) * (h - abs(mean))
        allowed = {-h, h} if isinstance(method, BinaryConnect) else {-h, 0.0, h}
        assert set(row.float().unique().tolist()) <= {float(torch.tensor(v)) for v in allowed}
        assert abs(float(row.mean()) - mean) <= 3 * math.sqrt(variance / DRAWS) + 1e-6
        assert float(row.var()) == pytest.approx(variance, rel=0.02, abs=1e-6)
        zeros = 0.0 if isinstance(method, BinaryConnect) else 1 - abs(mean) / h
        assert abs(float((row == 0).double().mean()) - zeros) <= 3 * math.sqrt(zeros * (1 - zeros) / DRAWS) + 1e-6


def test_the_draw_is_fair_in_bfloat16_too() -> None:
    """A bfloat16 draw would come out below 2^-10 four times too often."""
    latent = torch.full((1, 1_000_000), 2.0**-10, dtype=torch.bfloat16)
    torch.manual_seed(0)
    weight = TernaryConnect().build(latent)(latent)
    assert weight.dtype == torch.bfloat16
    expected = 1_000_000 / 1024
    assert abs(int((weight != 0).sum()) - expected) <= 3 * math.sqrt(expected)


@pytest.mark.parametrize("connect", CONNECTS)
class TestConnect:
    def test_seeds_decide_the_draw(self, connect: type[Method]) -> None:
        assert torch.equal(drawn(connect(), 1), drawn(connect(), 1))
        assert not torch.equal(drawn(connect(), 1), drawn(connect(), 2))

    def test_every_pass_draws_anew(self, connect: type[Method]) -> None:
        latent = torch.full((4, 100), 0.3)
        ternarizer = connect().build(latent)
        torch.manual_seed(0)
        assert not torch.equal(ternarizer(latent), ternarizer(latent))

    @pytest.mark.parametrize("setting", ["evaluation", "stochastic=False"])
    def test_is_deterministic_without_touching_the_generator(self, connect: type[Method], setting: str) -> None:
        latent = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
        ternarizer = connect(stochastic=setting == "evaluation").build(latent)
        ternarizer.train(setting != "evaluation")
        before = torch.get_rng_state()
        assert torch.equal(ternarizer(latent), ternarizer.ternary(latent).dequantize())
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(("scale", "h"), [("one", 1.0), ("data", None)])
    def test_latents_are_clipped_after_the_step(self, connect: type[Method], scale: str, h: float | None) -> None:
        torch.manual_seed(0)
        net = nn.Linear(6, 5)
        mean = float(net.weight.detach().abs().mean())
        limit = h or mean * (1.5 if connect is TernaryConnect else 1.0)
        ternarize_(net, connect(scale=scale))
        optimizer = torch.optim.SGD(net.parameters(), lr=10.0)
        net(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
        stepped = latent_of(net).detach().clone()
        assert float(stepped.abs().max()) > 1.0
        after_step_(net)
        torch.testing.assert_close(latent_of(net).detach(), stepped.clamp(-limit, limit))
        assert latent_of(net).requires_grad

    def test_the_scale_travels_with_the_state_dict(self, connect: type[Method]) -> None:
        first, second = nn.Linear(6, 5), nn.Linear(6, 5)
        for net in (first, second):
            ternarize_(net, connect(scale="data"))
        x = torch.randn(3, 6)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first.eval()(x), second.eval()(x))
        assert "parametrizations.weight.0.scale" in first.state_dict()
        assert all(parameter.shape != (1,) for parameter in first.parameters())  # H is not trained

    def test_rejects_unknown_settings(self, connect: type[Method]) -> None:
        with pytest.raises(UserError, match="stochastic must be True or False, got 1"):
            connect(stochastic=1)
        with pytest.raises(UserError, match="scale must be one of 'one', 'glorot', 'data', got 'two'"):
            connect(scale="two")

    def test_glorot_counts_the_positions_of_the_kernel(self, connect: type[Method]) -> None:
        weight = torch.zeros(7, 5, 3, 2)
        scale = connect(scale="glorot").build(weight).scale
        assert float(scale) == pytest.approx(math.sqrt(1.5 / (5 * 6 + 7 * 6)))

    def test_batch_norm_is_measured_with_the_codes_of_evaluation(self, connect: type[Method]) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
        ternarize_(net, connect())
        x = torch.randn(50, 6)
        tritkit.reestimate_bn_(net, [x])
        value = ternarizer_of(net[0]).ternary(latent_of(net[0])).dequantize()
        torch.testing.assert_close(net[1].running_mean, (x @ value.T + net[0].bias).mean(0))


def test_float_weights_need_a_scale_from_the_data() -> None:
    """What the docstrings say of H = 1 for a network that was trained in float."""
    weight = torch.randn(16, 144, generator=torch.Generator().manual_seed(0)) * 0.06
    assert TernaryConnect().project(weight).density == 0
    assert TernaryConnect(scale="data").project(weight).density == pytest.approx(0.55, abs=0.02)
    torch.manual_seed(1)  # not the weights' seed: their normals come from the same uniform stream
    noisy = BinaryConnect().build(weight)(weight)
    agree = float((noisy.sign() == weight.sign()).float().mean())
    assert agree == pytest.approx(0.5 + 0.06 * math.sqrt(2 / math.pi) / 2, abs=3 * 0.5 / math.sqrt(weight.numel()))


# ---- BWN ---------------------------------------------------------------------------------------------------------


def test_bwn_scale_is_the_least_squares_one() -> None:
    weight = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0))
    value = BWN().project(weight)
    residual = (weight - value.dequantize()).square().sum(1)
    for factor in (0.99, 1.01):
        assert bool((residual < (weight - factor * value.dequantize()).square().sum(1)).all())
    share = residual / weight.square().sum(1)
    torch.testing.assert_close(share, torch.full((4,), 1 - 2 / math.pi), rtol=0.02, atol=0)


def _loss(weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (torch.tanh(weight) * target).sum()


def test_bwn_full_gradient_is_the_derivative_where_the_signs_are_fixed() -> None:
    """Beyond |w| = 1 the straight-through sign is silent, and what is left of the weight is the smooth α."""
    generator = torch.Generator().manual_seed(0)
    latent = (1.1 + torch.rand(3, 2, 2, 2, generator=generator).double()) * torch.tensor([1.0, -1.0])[:, None, None]
    target = torch.randn(3, 2, 2, 2, generator=generator).double()
    ternarizer = BWN(latent_gradient="full").build(latent)
    latent.requires_grad_()
    _loss(ternarizer(latent), target).backward()
    h = 1e-6
    for index in [(0, 0, 0, 0), (1, 1, 0, 1), (2, 0, 1, 0)]:
        moved = []
        for sign in (1, -1):
            near = latent.detach().clone()
            near[index] += sign * h
            moved.append(float(_loss(ternarizer(near), target)))
        numeric = (moved[0] - moved[1]) / (2 * h)
        assert abs(numeric) > 1e-3  # the test could not fail otherwise
        assert float(latent.grad[index]) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("form", ["paper", "full"])
def test_bwn_gradient_has_both_terms(form: str) -> None:
    """Against plain loops, with latents on both sides of |w| = 1."""
    generator = torch.Generator().manual_seed(1)
    latent = (torch.randn(3, 4, 2, 2, generator=generator) * 1.2).requires_grad_()
    g = torch.randn(3, 4, 2, 2, generator=generator)
    get("bwn", latent_gradient=form).build(latent)(latent).backward(g)
    for o in range(3):
        w, d = latent[o].flatten().tolist(), g[o].flatten().tolist()
        alpha = sum(map(abs, w)) / 16
        along = sum(b if a >= 0 else -b for a, b in zip(w, d, strict=True)) / 16
        expected = [
            (b / 16 if form == "paper" else math.copysign(along, along * a)) + (alpha * b if abs(a) <= 1 else 0)
            for a, b in zip(w, d, strict=True)
        ]
        torch.testing.assert_close(latent.grad[o].flatten(), torch.tensor(expected))


def test_bwn_rejects_unknown_gradients() -> None:
    with pytest.raises(UserError, match="latent_gradient must be one of 'paper', 'full', got 'identity'"):
        BWN(latent_gradient="identity")
