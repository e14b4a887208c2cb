"""`Graph` → ONNX in the form every tool reads: float operations between DequantizeLinear and QuantizeLinear.

Weights are int8 (4 times the size of the 2-bit file). Engines fuse these patterns each in its own way, so results may
differ from docs/format.md by one rounding step.
"""

from __future__ import annotations

from functools import singledispatchmethod

import numpy as np
import onnx
from onnx import ModelProto, helper

from tritkit.deploy import graph as g
from tritkit.deploy.onnx_writer import _Writer

__all__ = ["to_qdq"]


def to_qdq(graph: g.Graph) -> ModelProto:
    """The model, of standard operations only. The graph must be valid (`Graph.validate`)."""
    model = _QdqWriter(graph).model([], {**graph.metadata, "tritkit.flavour": "qdq"})
    onnx.checker.check_model(model, full_check=True)
    return model


class _QdqWriter(_Writer):
    """Writes weighted layers, additions, average pools and rescales through float; the rest as `_Writer` does."""

    def _node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        name = f"{output}.{op}"
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))  # type: ignore[arg-type]
        return output

    def _real(self, node: g.Node, x: str) -> str:
        """The float form of a quantized input, made anew for each use, as importers expect."""
        return self._node("DequantizeLinear", [x, *self.quant(x)], f"{node.output}.from.{x}")

    def _weight(self, node: g.QConv | g.QGemm) -> list[str]:
        """Float weight and bias."""
        name = node.output
        rows = node.weight.shape[0]
        values = self.store(node.weight.integers(), np.int8, node.output, "weight")
        scale = self.store(node.w_scale, np.float32, node.output, "w_scale")
        zero = self.store(np.zeros(rows), np.int8, node.output, "w_zero")
        weight = self._node("DequantizeLinear", [values, scale, zero], f"{name}.real_weight", axis=0)
        x_scale = np.float32(self.graph.quant(node.inputs[0]).scale)
        unit = self.store(x_scale * node.w_scale, np.float32, node.output, "bias_scale")
        bias = self.store(node.bias, np.int32, node.output, "bias")
        bias_zero = self.store(np.zeros(rows), np.int32, node.output, "bias_zero")
        return [weight, self._node("DequantizeLinear", [bias, unit, bias_zero], f"{name}.real_bias", axis=0)]

    def _quantized(self, node: g.Node, op: str, inputs: list[str], **attributes: object) -> None:
        if self.graph.values[node.output].quant is None:
            self.nodes.append(helper.make_node(op, inputs, [node.output], node.name, **attributes))  # type: ignore[arg-type]
            return
        real = f"{node.output}.real"
        self.nodes.append(helper.make_node(op, inputs, [real], node.name, **attributes))  # type: ignore[arg-type]
        self._node("QuantizeLinear", [real, *self.quant(node.output)], node.output)

    @singledispatchmethod
    def write(self, node: g.Node) -> None:
        super().write(node)

    @write.register
    def _(self, node: g.QConv) -> None:
        inputs = [self._real(node, node.inputs[0]), *self._weight(node)]
        self._quantized(
            node, "Conv", inputs, kernel_shape=list(node.weight.shape[2:]), strides=list(node.strides),
            pads=list(node.pads), dilations=list(node.dilations), group=node.group,
        )  # fmt: skip

    @write.register
    def _(self, node: g.QGemm) -> None:
        self._quantized(node, "Gemm", [self._real(node, node.inputs[0]), *self._weight(node)], transB=1)

    @write.register
    def _(self, node: g.QAdd) -> None:
        a, b = node.inputs
        right = self._node("DequantizeLinear", [b, *self.quant(b)], f"{node.output}.second.{b}")
        self._quantized(node, "Add", [self._real(node, a), right])

    @write.register
    def _(self, node: g.QRescale) -> None:
        self._node("QuantizeLinear", [self._real(node, node.inputs[0]), *self.quant(node.output)], node.output)

    @write.register
    def _(self, node: g.QAveragePool) -> None:
        x = self._real(node, node.inputs[0])
        if _is_global_mean(node):
            self._quantized(node, "GlobalAveragePool", [x])
            return
        name = node.output
        cols = self.store(node.cols.T, np.float32, node.output, "cols_t")
        rows = self.store(node.rows, np.float32, node.output, "rows")
        columns = self._node("MatMul", [x, cols], f"{name}.columns")
        total = self._node("MatMul", [rows, columns], f"{name}.total")
        share = self.store(np.float32(1) / node.count, np.float32, node.output, "share")
        self._quantized(node, "Mul", [total, share])


def _is_global_mean(node: g.QAveragePool) -> bool:
    pixels = node.rows.size * node.cols.size
    return bool(node.count.shape == (1, 1) and node.rows.all() and node.cols.all() and node.count[0, 0] == pixels)
