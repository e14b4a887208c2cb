"""The integer network in PyTorch: fast enough for whole test sets, and the same bits as every engine.

Integer sums are computed as float64 convolutions and products of integer values: all partial sums are integers below
2^53, so they are exact in any order. The float32 steps that follow are those of docs/format.md, one by one.
"""

from __future__ import annotations

from functools import singledispatchmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tritkit.deploy import graph as g
from tritkit.errors import UserError

_INF = float("inf")


class Simulation(nn.Module):
    """Runs a graph on float32 images [N, ...]; quantized tensors are integer-valued float64 inside."""

    def __init__(self, graph: g.Graph) -> None:
        super().__init__()
        graph.validate()
        self.graph = graph
        self._weights = {n.output: torch.from_numpy(_values(n).astype(np.float64)) for n in graph.layers()}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The first output."""
        return self.values(x)[self.graph.outputs[0]]

    @torch.no_grad()
    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Every tensor by name, codes as float64 integers."""
        name = self.graph.inputs[0]
        if len(self.graph.inputs) != 1:
            raise UserError(f"the simulation runs networks of one input, this one has {list(self.graph.inputs)}")
        if x.dtype != torch.float32 or tuple(x.shape[1:]) != self.graph.values[name].shape:
            wanted = ["N", *self.graph.values[name].shape]
            raise UserError(f"input {name} must be float32 {wanted}, got {x.dtype} {list(x.shape)}")
        found = {name: x}
        for node in self.graph.nodes:
            found[node.output] = self._apply(node, *(found[i] for i in node.inputs))
        return found

    def _quantized(self, y: Tensor, node: g.Node) -> Tensor:
        return torch.clamp(torch.round(y) + self.graph.quant(node.output).zero_point, 0, 255).double()

    def _centred(self, x: Tensor, name: str) -> Tensor:
        return x - self.graph.quant(name).zero_point

    def _scale(self, name: str) -> Tensor:
        return torch.tensor(self.graph.quant(name).scale, dtype=torch.float32)

    def _scaled(self, acc: Tensor, node: g.QConv | g.QGemm) -> Tensor:
        """The layer's result from Σ x·w: with bias and factor, quantized if the output is."""
        each = (-1, *[1] * (acc.ndim - 2))
        acc = (acc + _constant(node.bias).double().reshape(each)).float()
        factor = self._scale(node.inputs[0]) * _constant(node.w_scale)
        if self.graph.values[node.output].quant is None:
            return acc * factor.reshape(each)
        return self._quantized(acc * (factor / self._scale(node.output)).reshape(each), node)

    def _convolve(self, x: Tensor, node: g.QConv | g.FloatConv) -> Tensor:
        top, left, bottom, right = node.pads
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self._weights[node.output], None, node.strides, 0, node.dilations, node.group)

    @singledispatchmethod
    def _apply(self, node: g.Node, *inputs: Tensor) -> Tensor:
        raise TypeError(f"no simulation for {type(node).__name__}")

    @_apply.register
    def _(self, node: g.Quantize, x: Tensor) -> Tensor:
        return self._quantized(x / self._scale(node.output), node)

    @_apply.register
    def _(self, node: g.Dequantize, x: Tensor) -> Tensor:
        return self._centred(x, node.inputs[0]).float() * self._scale(node.inputs[0])

    @_apply.register
    def _(self, node: g.QConv, x: Tensor) -> Tensor:
        return self._scaled(self._convolve(self._centred(x, node.inputs[0]), node), node)

    @_apply.register
    def _(self, node: g.QGemm, x: Tensor) -> Tensor:
        return self._scaled(self._centred(x, node.inputs[0]) @ self._weights[node.output].T, node)

    @_apply.register
    def _(self, node: g.FloatConv, x: Tensor) -> Tensor:
        y = self._convolve(x.double(), node) + _constant(node.bias).double()[:, None, None]
        return y.float()

    @_apply.register
    def _(self, node: g.FloatGemm, x: Tensor) -> Tensor:
        return (x.double() @ self._weights[node.output].T + _constant(node.bias).double()).float()

    @_apply.register
    def _(self, node: g.QAdd, a: Tensor, b: Tensor) -> Tensor:
        ys = self._scale(node.output)
        left, right = (
            self._centred(x, name).float() * (self._scale(name) / ys)
            for x, name in zip((a, b), node.inputs, strict=True)
        )
        return self._quantized(left + right, node)

    @_apply.register
    def _(self, node: g.QAveragePool, x: Tensor) -> Tensor:
        rows, cols = (_constant(m).double() for m in (node.rows, node.cols))
        acc = rows @ self._centred(x, node.inputs[0]) @ cols.T
        ratio = self._scale(node.inputs[0]) / self._scale(node.output)
        return self._quantized(acc.float() * (ratio / _constant(node.count)), node)

    @_apply.register
    def _(self, node: g.QRescale, x: Tensor) -> Tensor:
        ratio = self._scale(node.inputs[0]) / self._scale(node.output)
        return self._quantized(self._centred(x, node.inputs[0]).float() * ratio, node)

    @_apply.register
    def _(self, node: g.MaxPool, x: Tensor) -> Tensor:
        top, left, bottom, right = node.pads
        padded = F.pad(x, (left, right, top, bottom), value=-_INF)
        return F.max_pool2d(padded, node.kernel, node.strides, 0, node.dilations)

    @_apply.register
    def _(self, node: g.Clip, x: Tensor) -> Tensor:
        return x.clamp(node.low, node.high)

    @_apply.register
    def _(self, node: g.Pad, x: Tensor) -> Tensor:
        pairs = list(zip(node.before, node.after, strict=True))
        widths = [w for pair in reversed(pairs) for w in pair]
        return F.pad(x, widths, value=self.graph.quant(node.output).zero_point)

    @_apply.register
    def _(self, node: g.Slice, x: Tensor) -> Tensor:
        parts = zip(node.starts, node.stops, node.steps, strict=True)
        return x[(slice(None), *(slice(*part) for part in parts))]

    @_apply.register
    def _(self, node: g.Concat, *xs: Tensor) -> Tensor:
        return torch.cat(xs, dim=node.axis)

    @_apply.register
    def _(self, node: g.Reshape, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.graph.values[node.output].shape)

    @_apply.register
    def _(self, node: g.FloatClip, x: Tensor) -> Tensor:
        return x.clamp(node.low, node.high)


def _values(node: g.QConv | g.QGemm | g.FloatConv | g.FloatGemm) -> NDArray[np.int8] | NDArray[np.float32]:
    return node.weight if isinstance(node, (g.FloatConv, g.FloatGemm)) else node.weight.integers()


def _constant(array: NDArray[Any]) -> Tensor:
    """A copy: arrays read from a file are read-only, which tensors cannot be."""
    return torch.from_numpy(array.copy())
