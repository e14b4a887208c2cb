"""The float32 network behind an integer one: what engines without our file format are given of a file of ours.

Weights are the integers times their scales. Quantization steps vanish, but for what they do to the values: where a
layer writes codes with zero point 0 nothing below zero comes out, which is a ReLU.
"""

from __future__ import annotations

from functools import singledispatch
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tritkit.deploy import graph as g
from tritkit.errors import UnsupportedError


class FloatTwin(nn.Module):
    """Float32 images [N, ...] to the graph's first output. torch.fx can trace it."""

    def __init__(self, graph: g.Graph) -> None:
        super().__init__()
        self.steps = [(node.inputs, node.output) for node in graph.nodes]
        self.ends = (graph.inputs[0], graph.outputs[0])
        self.layers = nn.ModuleList(_layer(node, graph) for node in graph.nodes)

    def forward(self, x: Tensor) -> Tensor:
        values = {self.ends[0]: x}
        for (inputs, output), layer in zip(self.steps, self.layers, strict=True):
            values[output] = layer(*(values[name] for name in inputs))
        return values[self.ends[1]]


@singledispatch
def _layer(node: g.Node, graph: g.Graph) -> nn.Module:
    raise UnsupportedError(f"node {node.name}: the bench has no float32 form of {type(node).__name__}")


@_layer.register
def _(node: g.QConv, graph: g.Graph) -> nn.Module:
    return _then_relu(_conv(node, *_weight_and_bias(node, graph)), node, graph)


@_layer.register
def _(node: g.QGemm, graph: g.Graph) -> nn.Module:
    return _then_relu(_linear(*_weight_and_bias(node, graph)), node, graph)


@_layer.register
def _(node: g.FloatConv, graph: g.Graph) -> nn.Module:
    return _conv(node, _tensor(node.weight), _tensor(node.bias))


@_layer.register
def _(node: g.FloatGemm, graph: g.Graph) -> nn.Module:
    return _linear(_tensor(node.weight), _tensor(node.bias))


@_layer.register
def _(node: g.QAdd, graph: g.Graph) -> nn.Module:
    return _Add(_then_relu(nn.Identity(), node, graph))


@_layer.register(g.Quantize)
@_layer.register(g.Dequantize)
@_layer.register(g.QRescale)
def _(node: g.Node, graph: g.Graph) -> nn.Module:
    return nn.Identity()


@_layer.register
def _(node: g.QAveragePool, graph: g.Graph) -> nn.Module:
    whole = node.count.size == 1 and bool((node.rows == 1).all() and (node.cols == 1).all())
    return nn.AdaptiveAvgPool2d(1) if whole else _AveragePool(node)


@_layer.register
def _(node: g.MaxPool, graph: g.Graph) -> nn.Module:
    top, left, bottom, right = node.pads
    if (top, left) == (bottom, right):
        return nn.MaxPool2d(node.kernel, node.strides, (top, left), node.dilations)
    pad = nn.ConstantPad2d((left, right, top, bottom), float("-inf"))
    return nn.Sequential(pad, nn.MaxPool2d(node.kernel, node.strides, 0, node.dilations))


@_layer.register
def _(node: g.Clip, graph: g.Graph) -> nn.Module:
    quant = graph.quant(node.output)
    low, high = (quant.scale * (code - quant.zero_point) for code in (node.low, node.high))
    return nn.ReLU() if low == 0 and node.high == 255 else nn.Hardtanh(low, high)


@_layer.register
def _(node: g.FloatClip, graph: g.Graph) -> nn.Module:
    return nn.ReLU() if node.low == 0 and np.isinf(node.high) else nn.Hardtanh(node.low, node.high)


@_layer.register
def _(node: g.Pad, graph: g.Graph) -> nn.Module:
    pairs = zip(reversed(node.before), reversed(node.after), strict=True)
    return _Pad(tuple(width for pair in pairs for width in pair))


@_layer.register
def _(node: g.Slice, graph: g.Graph) -> nn.Module:
    sizes = graph.values[node.inputs[0]].shape
    rows = zip(node.starts, node.stops, node.steps, sizes, strict=True)
    return _Slice([_open_slice(*row) for row in rows])


@_layer.register
def _(node: g.Concat, graph: g.Graph) -> nn.Module:
    return _Concat(node.axis)


@_layer.register
def _(node: g.Reshape, graph: g.Graph) -> nn.Module:
    shape = graph.values[node.output].shape
    return nn.Flatten() if len(shape) == 1 else nn.Unflatten(1, shape)


def _open_slice(start: int, stop: int, step: int, size: int) -> slice:
    """The slice as one writes it: no start of 0, no stop where it takes what is there to the end, no step of 1."""
    to_the_end = len(range(start, stop, step)) == len(range(start, size, step))
    return slice(start or None, None if to_the_end else stop, None if step == 1 else step)


def _weight_and_bias(node: g.QConv | g.QGemm, graph: g.Graph) -> tuple[Tensor, Tensor]:
    integers = node.weight.integers().astype(np.float32)
    weight = integers * node.w_scale.reshape(-1, *[1] * (integers.ndim - 1))
    return _tensor(weight), _tensor(node.bias * (graph.quant(node.inputs[0]).scale * node.w_scale))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _conv(node: g.QConv | g.FloatConv, weight: Tensor, bias: Tensor) -> nn.Module:
    top, left, bottom, right = node.pads
    even = (top, left) == (bottom, right)
    conv = nn.Conv2d(
        *(weight.shape[1] * node.group, weight.shape[0], cast("tuple[int, int]", tuple(weight.shape[2:]))),
        stride=node.strides,
        padding=(top, left) if even else 0,
        dilation=node.dilations,
        groups=node.group,
    )
    _fill(conv, weight, bias)
    return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)


def _linear(weight: Tensor, bias: Tensor) -> nn.Module:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    _fill(linear, weight, bias)
    return linear


def _fill(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)


def _then_relu(layer: nn.Module, node: g.Node, graph: g.Graph) -> nn.Module:
    quant = graph.values[node.output].quant
    return layer if quant is None or quant.zero_point else nn.Sequential(layer, nn.ReLU())


class _Add(nn.Module):
    def __init__(self, then: nn.Module) -> None:
        super().__init__()
        self.then = then

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return cast(Tensor, self.then(a + b))


class _AveragePool(nn.Module):
    """Means over runs of rows and columns."""

    rows: Tensor
    cols: Tensor
    count: Tensor

    def __init__(self, node: g.QAveragePool) -> None:
        super().__init__()
        self.register_buffer("rows", _tensor(node.rows))
        self.register_buffer("cols", _tensor(node.cols.T))
        self.register_buffer("count", _tensor(node.count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(torch.matmul(self.rows, x), self.cols) / self.count


class _Pad(nn.Module):
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.widths)


class _Slice(nn.Module):
    def __init__(self, parts: list[slice]) -> None:
        super().__init__()
        self.index = (slice(None), *parts)

    def forward(self, x: Tensor) -> Tensor:
        return x[self.index]


class _Concat(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, self.axis)
