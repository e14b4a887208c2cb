"""DoReFa's activations and gradients: the formulas by hand, the moments of the noise, and where they are put."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tritkit.errors import UserError
from tritkit.low_bit import PRESETS, QuantizeActivation, QuantizeGradient, dorefa_, quantize_gradient
from tritkit.surgery import ternary_layers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5),
    )  # fmt: skip


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


# ---- activations -------------------------------------------------------------------------------------------------


def test_two_bit_activations_by_hand() -> None:
    # times 3: below 0, 0, 0.48, 0.51, 1.5 (a tie, to even), 2.4, 3, above
    x = torch.tensor([-0.5, 0.0, 0.16, 0.17, 0.5, 0.8, 1.0, 1.5], requires_grad=True)
    y = QuantizeActivation(2)(x)
    torch.testing.assert_close(y, torch.tensor([0, 0, 0, 1, 2, 2, 3, 3]) / 3)
    y.backward(torch.arange(1.0, 9.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]


def test_eight_bit_activations_are_rounded_in_float32() -> None:
    x = torch.linspace(-0.2, 1.2, 1001).to(torch.bfloat16)
    y = QuantizeActivation(8)(x)
    assert y.dtype == torch.bfloat16
    expected = [round(min(max(v, 0.0), 1.0) * 255) / 255 for v in x.tolist()]
    assert torch.equal(y, torch.tensor(expected).to(torch.bfloat16))


def test_quantizing_twice_changes_nothing() -> None:
    x = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    for bits in (1, 2, 4, 8):
        once = QuantizeActivation(bits)(x)
        assert len(once.unique()) == 2**bits
        assert torch.equal(QuantizeActivation(bits)(once), once)


# ---- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 6])
@pytest.mark.parametrize("value", [-0.9, -0.25, 0.0, 0.3, 1.0])
def test_gradient_noise_keeps_the_mean(bits: int, value: float) -> None:
    n, m, levels = 100_000, 2.0, 2**bits - 1
    grad = torch.full((1, n), value * m)
    grad[0, 0] = -m  # decides the range
    torch.manual_seed(0)
    result = quantize_gradient(grad, bits)[0].double()
    assert float(result[0]) == -m
    position = (value + 1) / 2 * levels  # between the levels ⌊position⌋ and ⌊position⌋ + 1
    share = position - math.floor(position)
    step = 2 * m / levels
    error = float(result[1:].mean()) - value * m
    assert abs(error) <= 3 * step * math.sqrt(share * (1 - share) / n) + 1e-6
    expected = {math.floor(position) * step - m, math.ceil(position) * step - m}
    found = result[1:].unique()
    assert all(min(abs(float(v) - e) for e in expected) < 1e-5 for v in found)
    assert float(result[1:].var()) == pytest.approx(step**2 * share * (1 - share), rel=0.03, abs=1e-9)


def test_each_sample_has_a_range_of_its_own() -> None:
    grad = torch.tensor([[1.0, -0.5], [1000.0, 10.0], [0.0, 0.0]])[:, :, None, None].expand(3, 2, 2, 2)
    torch.manual_seed(0)
    result = quantize_gradient(grad, 2)
    for sample, m in zip(result, (1.0, 1000.0, 1.0), strict=True):
        steps = sample / m * 3
        torch.testing.assert_close(steps, steps.round())
    assert bool((result[0, 0] == 1).all())
    assert bool((result[1, 0] == 1000).all())
    assert float(result[1, 1].abs().max()) in (pytest.approx(1000 / 3), pytest.approx(1000))
    assert bool((result[2] == 0).all())


def test_gradients_do_not_hide_what_went_wrong() -> None:
    grad = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [1.0, 1.0]])
    result = quantize_gradient(grad, 4)
    assert not bool(result[:2].isfinite().all(1).any())
    assert bool(result[2].isfinite().all())
    assert quantize_gradient(torch.ones(0, 3), 4).shape == (0, 3)
    assert quantize_gradient(torch.ones(2, 3, dtype=torch.bfloat16), 8).dtype == torch.bfloat16


def test_the_module_is_the_identity_but_for_the_gradient() -> None:
    quantizer, x = QuantizeGradient(3), torch.randn(2, 5, requires_grad=True)
    g = torch.randn(2, 5)
    torch.manual_seed(7)
    y = quantizer(x)
    y.backward(g)
    torch.manual_seed(7)
    assert torch.equal(y, x)
    assert torch.equal(x.grad, quantize_gradient(g, 3))
    assert quantizer.eval()(x) is x


# ---- whole networks ----------------------------------------------------------------------------------------------


def test_first_and_last_layer_stay_float() -> None:
    net = network()
    keys = set(net.state_dict())
    assert dorefa_(net, *PRESETS["1-2-6"]) == ["3", "7"] == list(ternary_layers(net))
    assert keys - set(net.state_dict()) == {"3.weight", "7.weight"}  # replaced by their latents
    assert (net[3].input_quantizer.bits, net[3].gradient_quantizer.bits) == (2, 6)
    assert not hasattr(net[0], "input_quantizer")
    assert not hasattr(net[10], "gradient_quantizer")
    assert dorefa_(network(), 1, exclude=()) == ["0", "3", "7", "10"]


def test_presets() -> None:
    assert PRESETS == {"1-32-32": (1, 32, 32), "8-8-8": (8, 8, 8), "1-2-6": (1, 2, 6)}
    net = network()
    dorefa_(net, *PRESETS["1-32-32"])
    assert not any(isinstance(m, (QuantizeActivation, QuantizeGradient)) for m in net.modules())


def test_a_low_bit_layer_by_hand() -> None:
    """Input, weight, output, and both gradients of one linear layer."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, bias=False)
    dorefa_(layer, 1, 2, 4, exclude=())
    x = torch.tensor([[0.1, 0.45, -3.0], [0.9, 2.0, 0.6]], requires_grad=True)
    low = torch.tensor([[0.0, 1 / 3, 0.0], [1.0, 1.0, 2 / 3]])
    latent = layer.parametrizations.weight.original
    weight = torch.where(latent >= 0, 1, -1) * latent.detach().abs().mean()
    g = torch.tensor([[0.7, -0.2], [1e-3, 4e-3]])
    y = layer(x)
    torch.testing.assert_close(y, low @ weight.T)
    torch.manual_seed(5)
    y.backward(g)
    torch.manual_seed(5)
    rounded = quantize_gradient(g, 4)
    assert not torch.equal(rounded, g)
    torch.testing.assert_close(latent.grad, rounded.T @ low)
    inside = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    torch.testing.assert_close(x.grad, rounded @ weight * inside)


def test_training_is_reproducible_and_learns() -> None:
    losses = []
    for seed in (1, 1, 2):
        net = network()
        dorefa_(net, *PRESETS["1-2-6"])
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(30):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(IMAGES), torch.tensor([1, 3]))
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[:30] == losses[30:60] != losses[60:]
    assert losses[29] < 0.5 * losses[0]


def test_copies_are_independent_and_evaluation_is_deterministic() -> None:
    net = network()
    dorefa_(net, *PRESETS["8-8-8"])
    other = copy.deepcopy(net).eval()
    state = torch.get_rng_state()
    assert torch.equal(other(IMAGES), other(IMAGES))
    assert torch.equal(torch.get_rng_state(), state)
    assert other[3].input_quantizer is not net[3].input_quantizer


@pytest.mark.parametrize("preset", PRESETS)
def test_autocast_keeps_low_bit_weights_and_state(preset: str) -> None:
    net = network()
    dorefa_(net, *PRESETS[preset])
    other = network()
    dorefa_(other, *PRESETS[preset])
    exact = net[3].weight.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net[3].weight, exact)
        loss = net(IMAGES).float().square().mean()
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all()) for p in net.parameters())
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(IMAGES), net.eval()(IMAGES))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on its way to the compiler
def test_it_traces_into_one_graph() -> None:
    net = network()
    dorefa_(net, *PRESETS["1-2-6"])
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    for each in (net, compiled):
        torch.manual_seed(1)
        each(IMAGES).square().mean().backward()
    for a, b in zip(net.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((32, 2, 6), "weight_bits must be an integer from 1 to 16, got 32"),
        ((1, 0, 6), "activation_bits must be an integer from 1 to 16 or 32, got 0"),
        ((1, 2, 31), "gradient_bits must be an integer from 1 to 16 or 32, got 31"),
        ((1, True, 6), "activation_bits must be an integer from 1 to 16 or 32, got True"),
    ],
)
def test_other_bits_leave_the_network_as_it_was(bits: tuple[int, int, int], message: str) -> None:
    net = network()
    with pytest.raises(UserError, match=message):
        dorefa_(net, *bits)
    assert not ternary_layers(net)


def test_networks_without_an_inner_layer_are_refused() -> None:
    with pytest.raises(UserError, match="no layer is left"):
        dorefa_(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    with pytest.raises(UserError, match="no layer is left"):
        dorefa_(nn.ReLU())
    net = network()
    dorefa_(net, 1, 2, 6)
    with pytest.raises(UserError, match="is ternary already"):
        dorefa_(net, 1, 2, 6)
