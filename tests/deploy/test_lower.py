"""Lowering: the integer graph computes what the fake-quantized network does, and says what it cannot express."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_modules import network
from torch import Tensor, nn

import tritkit
from tritkit.deploy import Simulation, graph, lower
from tritkit.errors import UnsupportedError, UserError
from tritkit.methods import TTQ, TWN
from tritkit.observers import MinMax


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("seeds", [range(0, 4), range(4, 8)], ids=str)
def test_the_integer_graph_computes_what_the_fake_quantized_network_does(seeds: range) -> None:
    errors = []
    for seed in seeds:
        net, images = network(seed)
        quantized = tritkit.quantize_activations(net, MinMax()).eval()
        tritkit.calibrate(quantized, [images])
        with torch.no_grad():
            expected = quantized(images)
        found = Simulation(lower(quantized, images))(images)
        errors.append(float((found - expected).abs().max() / expected.std()))
        by_calibration = lower(net, images[:1], calibration=[images], observer=MinMax())
        assert torch.equal(Simulation(by_calibration)(images), found)
    # a code that rounds the other way is about 1/50 of a standard deviation
    assert np.median(errors) < 0.02
    assert max(errors) < 0.1


# ---- worked numbers ------------------------------------------------------------------------------------------


def _conv_of(net: nn.Module, images: Tensor, **options: Any) -> graph.QConv:
    lowered = lower(net, images, calibration=[images], observer=MinMax(), **options)
    (layer,) = (node for node in lowered.nodes if isinstance(node, graph.QConv))
    return layer


def _normed(factors: list[float], shifts: list[float], weight: Tensor) -> nn.Sequential:
    """1x1 convolution of `weight` [O, C], then exactly factor · y + shift."""
    norm = nn.BatchNorm2d(len(factors), eps=0.0)
    conv = nn.Conv2d(weight.shape[1], len(factors), 1, bias=False)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(factors))
        norm.bias.copy_(torch.tensor(shifts))
        conv.weight.copy_(weight[:, :, None, None])
    return nn.Sequential(conv, norm)


def test_a_negative_factor_flips_codes_and_swaps_the_codebook() -> None:
    weight = torch.tensor([[2.0, 0.0, -1.0], [2.0, 0.0, -1.0]])
    images = torch.rand(4, 3, 5, 5)
    layer = _conv_of(_normed([0.5, -0.5], [0.0, 0.0], weight), images)
    assert isinstance(layer.weight, graph.TernaryWeight)
    assert layer.weight.codes[:, :, 0, 0].tolist() == [[1, 0, -1], [-1, 0, 1]]
    assert (layer.weight.p.tolist(), layer.weight.n.tolist()) == ([64, 32], [32, 64])
    np.testing.assert_array_equal(layer.w_scale, np.float32([2 / 64 / 2] * 2))


def test_the_bias_stays_in_range_for_tiny_and_zero_factors() -> None:
    weight = torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0]])
    images = torch.rand(4, 2, 5, 5)
    net = _normed([1.0, 1e-12, 0.0], [0.5, 0.5, -0.5], weight).eval()
    lowered = lower(net, images, calibration=[images], observer=MinMax())
    (layer,) = (node for node in lowered.nodes if isinstance(node, graph.QConv))
    assert np.abs(layer.bias.astype(np.int64)).max() <= 2**30
    with torch.no_grad():
        expected = net(images)
    step, x_step = lowered.quant(layer.output).scale, lowered.quant(layer.inputs[0]).scale
    errors = (Simulation(lowered)(images) - expected).abs().amax((0, 2, 3))
    assert float(errors[0]) <= step / 2 + 2 * x_step / 2 + 1e-6
    assert float(errors[1:].max()) <= step / 2 + 1e-6


def test_bias_and_padding_are_exact_on_codes() -> None:
    """3x3 sums of ones: inside 9, at edges 6, in corners 4, plus the bias."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.ones_(conv.weight)
    nn.init.constant_(conv.bias, 2.0)
    images = torch.ones(2, 1, 4, 4)
    lowered = lower(conv, images, calibration=[images], observer=MinMax())
    found = Simulation(lowered)(images)[0, 0]
    expected = torch.tensor([[6.0, 8, 8, 6], [8, 11, 11, 8], [8, 11, 11, 8], [6, 8, 8, 6]])
    assert float((found - expected).abs().max()) <= 11 / 255


def test_ternary_layers_keep_their_codes_and_method() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    tritkit.ternarize_(net, TTQ(), include=["2"])
    ((_, _, ternary),) = tritkit.named_ternary(net)
    images = torch.randn(2, 3, 9, 9)
    lowered = lower(net, images, calibration=[images])
    first, second = (n for n in lowered.nodes if isinstance(n, graph.QConv))
    assert isinstance(first.weight, graph.Int8Weight)
    assert isinstance(second.weight, graph.TernaryWeight)
    np.testing.assert_array_equal(second.weight.codes, ternary.codes.numpy())
    rows = json.loads(lowered.metadata["tritkit.layers"])
    assert [(r["name"], r["kind"], r["method"]) for r in rows] == [("0", "int8", ""), ("2", "ternary", "ttq")]
    assert rows[1]["density"] == pytest.approx(ternary.density, abs=1e-6)


def test_stripped_layers_are_still_ternary() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3))
    tritkit.ternarize_(net, TWN())
    images = torch.randn(2, 3, 9, 9)
    before = _conv_of(net, images)
    tritkit.strip_(net)
    after = _conv_of(net, images)
    np.testing.assert_array_equal(after.weight.integers(), before.weight.integers())
    np.testing.assert_array_equal(after.w_scale, before.w_scale)


def test_policies_choose_the_kind_of_a_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(100, 3))
    tritkit.ternarize_(net, TWN(), include=["2"])
    images = torch.randn(2, 3, 9, 9)
    lowered = lower(net, images, calibration=[images], policies={"0": "float32", "2": "int8"})
    kinds = [r["kind"] for r in json.loads(lowered.metadata["tritkit.layers"])]
    assert kinds == ["float32", "int8", "int8"]
    assert isinstance(lowered.nodes[0], graph.FloatConv)  # no quantizer in front of it
    with pytest.raises(UserError, match=r"\['9'\] match no layer"):
        lower(net, images, calibration=[images], policies={"9": "int8"})
    with pytest.raises(UserError, match="int8, float32"):
        lower(net, images, calibration=[images], policies={"0": "int4"})


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(F.relu(self.conv(x)))
        return self.drop(x), F.avg_pool2d(x, 2)


def test_a_module_used_twice_and_two_outputs() -> None:
    net, images = _Twice().train(), torch.randn(4, 3, 6, 6)
    lowered = lower(net, images, calibration=[images])
    assert net.training
    assert net.drop.training
    assert [n.name for n in lowered.nodes if isinstance(n, graph.QConv)] == ["conv", "conv.2"]
    assert lowered.outputs == ("output_0", "output_1")
    values = Simulation(lowered).values(images)
    with torch.no_grad():
        first, second = net.eval()(images)
    assert float((values["output_0"] - first).abs().max()) < 0.05 * float(first.abs().max())
    assert float((values["output_1"] - second).abs().max()) < 0.05 * float(second.abs().max())


def test_pads_and_slices_cost_one_operation_or_none() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(F.pad(x, (1, 2, 0, 1)))
            return x[:, 1:, ::2, ::2]

    images = torch.randn(2, 3, 6, 6)
    lowered = lower(Net(), images, calibration=[images])
    assert [type(n).__name__ for n in lowered.nodes] == ["Quantize", "QConv", "Slice", "Dequantize"]
    layer = lowered.nodes[1]
    assert isinstance(layer, graph.QConv)
    assert layer.pads == (0, 1, 1, 2)


def test_a_relu_behind_a_shared_value_is_a_clip() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.conv(x)
            return x, F.relu(x)

    images = torch.randn(2, 3, 6, 6)
    lowered = lower(Net(), images, calibration=[images])
    (clip,) = (n for n in lowered.nodes if isinstance(n, graph.Clip))
    assert (clip.low, clip.high) == (lowered.quant(clip.output).zero_point, 255)


# ---- what cannot be expressed --------------------------------------------------------------------------------


class _Calls(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x, net: torch.sigmoid(x), "aten::sigmoid"),
        (lambda x, net: x * x, "aten::mul"),
        (lambda x, net: x + 1.0, "aten::add"),
        (lambda x, net: x.mean(1), "aten::mean"),
        (lambda x, net: F.pad(x, (1, 1, 1, 1), value=1.0), "padding with zeros"),
        (lambda x, net: F.pad(x, (1, 1, 1, 1), mode="reflect"), "padding with zeros"),
        (lambda x, net: torch.cat([x, x]), "batch"),
        (lambda x, net: x.flatten(0, 1), "first axis"),
        (lambda x, net: net.norm(x), "batch_norm"),
    ],
)
def test_what_has_no_integer_form_is_named(function: Any, named: str) -> None:
    images = torch.randn(2, 3, 6, 6)
    with pytest.raises(UnsupportedError, match=named):
        lower(_Calls(function), images, calibration=[images])


def test_the_place_of_an_unsupported_operation_is_its_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.GELU()))
    images = torch.randn(2, 3, 6, 6)
    with pytest.raises(UnsupportedError, match=r"aten::gelu in module '1\.1'.*convolution, linear"):
        lower(net, images, calibration=[images])


def test_missing_ranges_are_listed_with_advice() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(UserError, match=r"no quantization range: .*module '1'.*quantize_activations.*calibration="):
        lower(net, torch.randn(1, 3, 6, 6))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no batch"),
        ([torch.full((1, 3, 6, 6), torch.nan)], "NaN"),
        ([torch.zeros(1, 3, 5, 6)], r"must be float32 \['N', 3, 6, 6\]"),
        ([torch.zeros(1, 3, 6, 6, dtype=torch.float64)], "float64"),
    ],
)
def test_bad_calibration_is_named(batches: list[Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        lower(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 6, 6), calibration=batches)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 3, 6, 6, dtype=torch.uint8), "float32"),
        (torch.full((1, 3, 6, 6), torch.inf), "infinite"),
        (torch.zeros(0, 3, 6, 6), "not empty"),
        (torch.zeros(1, 2, 6, 6), r"shape \['N', 2, 6, 6\]"),
        (np.zeros((1, 3, 6, 6)), "tensor"),
    ],
)
def test_bad_examples_are_named(example: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lower(nn.Conv2d(3, 4, 3), example, calibration=[])


def test_weights_that_are_not_finite_are_named() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        lower(conv, torch.randn(1, 3, 6, 6), calibration=[torch.randn(1, 3, 6, 6)])
