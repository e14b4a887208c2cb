"""The integer network in plain NumPy: the slow truth of docs/format.md. Shares no code with any engine.

Integer sums are float64 matrix products of integers: below 2^53 they are exact in any order, and NumPy multiplies them
fast. Every other float operation is one float32 operation, in the order of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatchmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.deploy import graph as g
from tritkit.errors import UserError

Array = NDArray[Any]
F = np.float32


class Reference:
    """Runs a graph. `run` returns the outputs, `values` every tensor by name."""

    def __init__(self, graph: g.Graph) -> None:
        graph.validate()
        self.graph = graph

    def run(self, x: Array) -> Array:
        """The first output for float32 images [N, ...]."""
        return self.values({self.graph.inputs[0]: x})[self.graph.outputs[0]]

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All tensors for float32 inputs by name."""
        found: dict[str, Array] = {}
        for name in self.graph.inputs:
            shape, x = self.graph.values[name].shape, np.asarray(inputs[name])
            if x.dtype != np.float32 or x.shape[1:] != shape:
                raise UserError(f"input {name} must be float32 {['N', *shape]}, got {x.dtype} {list(x.shape)}")
            found[name] = x
        for node in self.graph.nodes:
            found[node.output] = self._apply(node, *(found[x] for x in node.inputs))
        return found

    # ---- the formulas

    def _quantized(self, y: Array, node: g.Node) -> Array:
        codes: Array = np.rint(y) + self.graph.quant(node.output).zero_point
        return codes.clip(0, 255).astype(np.uint8)

    def _centred(self, x: Array, name: str) -> Array:
        return x.astype(np.float64) - self.graph.quant(name).zero_point

    def _factor(self, node: g.QConv | g.QGemm) -> Array:
        """xs·ws, and divided by ys where the result is quantized; [O]."""
        factor: Array = F(self.graph.quant(node.inputs[0]).scale) * node.w_scale
        out = self.graph.values[node.output].quant
        return factor if out is None else factor / F(out.scale)

    @singledispatchmethod
    def _apply(self, node: g.Node, *inputs: Array) -> Array:
        raise TypeError(f"no reference for {type(node).__name__}")

    @_apply.register
    def _(self, node: g.Quantize, x: Array) -> Array:
        return self._quantized(x / F(self.graph.quant(node.output).scale), node)

    @_apply.register
    def _(self, node: g.Dequantize, x: Array) -> Array:
        return self._centred(x, node.inputs[0]).astype(F) * F(self.graph.quant(node.inputs[0]).scale)

    @_apply.register
    def _(self, node: g.QConv, x: Array) -> Array:
        acc = _convolve(self._centred(x, node.inputs[0]), node.weight.integers().astype(np.float64), node)
        acc += node.bias[:, None, None]
        return self._quantized(acc.astype(F) * self._factor(node)[:, None, None], node)

    @_apply.register
    def _(self, node: g.QGemm, x: Array) -> Array:
        acc = self._centred(x, node.inputs[0]) @ node.weight.integers().astype(np.float64).T + node.bias
        y: Array = acc.astype(F) * self._factor(node)
        return y if self.graph.values[node.output].quant is None else self._quantized(y, node)

    @_apply.register
    def _(self, node: g.FloatConv, x: Array) -> Array:
        y = _convolve(x.astype(np.float64), node.weight.astype(np.float64), node)
        return (y + node.bias[:, None, None]).astype(F)

    @_apply.register
    def _(self, node: g.FloatGemm, x: Array) -> Array:
        return (x.astype(np.float64) @ node.weight.astype(np.float64).T + node.bias).astype(F)

    @_apply.register
    def _(self, node: g.QAdd, a: Array, b: Array) -> Array:
        ys = F(self.graph.quant(node.output).scale)
        left, right = (
            self._centred(x, name).astype(F) * (F(self.graph.quant(name).scale) / ys)
            for x, name in zip((a, b), node.inputs, strict=True)
        )
        return self._quantized(left + right, node)

    @_apply.register
    def _(self, node: g.QAveragePool, x: Array) -> Array:
        x, rows, cols = self._centred(x, node.inputs[0]), node.rows.astype(np.float64), node.cols.astype(np.float64)
        acc = rows @ x @ cols.T
        ratio = F(self.graph.quant(node.inputs[0]).scale) / F(self.graph.quant(node.output).scale)
        return self._quantized(acc.astype(F) * (ratio / node.count), node)

    @_apply.register
    def _(self, node: g.QRescale, x: Array) -> Array:
        ratio = F(self.graph.quant(node.inputs[0]).scale) / F(self.graph.quant(node.output).scale)
        return self._quantized(self._centred(x, node.inputs[0]).astype(F) * ratio, node)

    @_apply.register
    def _(self, node: g.MaxPool, x: Array) -> Array:
        # no code is below 0, so padding with 0 never wins, as long as every window has a pixel of the image
        top, left, bottom, right = node.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        taps = [padded[s] for s in _windows(padded.shape, node.kernel, node.strides, node.dilations)]
        highest: Array = np.maximum.reduce(taps)
        return highest

    @_apply.register
    def _(self, node: g.Clip, x: Array) -> Array:
        return np.clip(x, node.low, node.high).astype(np.uint8)

    @_apply.register
    def _(self, node: g.Pad, x: Array) -> Array:
        widths = [(0, 0), *zip(node.before, node.after, strict=True)]
        return np.pad(x, widths, constant_values=self.graph.quant(node.output).zero_point)

    @_apply.register
    def _(self, node: g.Slice, x: Array) -> Array:
        parts = zip(node.starts, node.stops, node.steps, strict=True)
        return x[(slice(None), *(slice(*part) for part in parts))]

    @_apply.register
    def _(self, node: g.Concat, *xs: Array) -> Array:
        return np.concatenate(xs, axis=node.axis)

    @_apply.register
    def _(self, node: g.Reshape, x: Array) -> Array:
        return x.reshape(len(x), *self.graph.values[node.output].shape)

    @_apply.register
    def _(self, node: g.FloatClip, x: Array) -> Array:
        return np.clip(x, F(node.low), F(node.high))


def _windows(
    shape: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> list[tuple[slice, ...]]:
    """For each tap of the kernel, in (ky, kx) order, the slice of a padded [N, C, H, W] array that it sees."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, strides, dilations
    oh, ow = (shape[2] - dh * (kh - 1) - 1) // sh + 1, (shape[3] - dw * (kw - 1) - 1) // sw + 1
    every = slice(None)
    return [
        (every, every, slice(y, y + (oh - 1) * sh + 1, sh), slice(x, x + (ow - 1) * sw + 1, sw))
        for y in range(0, dh * kh, dh)
        for x in range(0, dw * kw, dw)
    ]


def _convolve(x: Array, w: Array, node: g.QConv | g.FloatConv) -> Array:
    """Σ x·w over taps and channels; x [N, C, H, W] with zeros meaning nothing, w [O, C / group, kh, kw]."""
    top, left, bottom, right = node.pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    parts = []
    for part, weight in zip(np.split(x, node.group, axis=1), np.split(w, node.group), strict=True):
        taps = _windows(part.shape, (w.shape[2], w.shape[3]), node.strides, node.dilations)
        total: Array = np.zeros(0)
        for i, tap in enumerate(taps):
            pixels = np.moveaxis(part[tap], 1, -1)  # [N, OH, OW, C]
            product = pixels @ weight[:, :, i // w.shape[3], i % w.shape[3]].T
            total = product if i == 0 else total + product
        parts.append(np.moveaxis(total, -1, 1))
    return np.concatenate(parts, axis=1)
