"""The bodies of the `tritkit` operations: model-local ONNX functions of standard operations (docs/format.md).

A body computes what the table in docs/format.md says, bit for bit, in stock ONNX Runtime at every optimisation
level; the unpacking of 2-bit weights is folded at load. What bodies avoid, since runtimes rewrite it to something that
rounds otherwise: `DequantizeLinear, Add, QuantizeLinear`; a float convolution followed by a multiplication; an integer
matrix product whose float conversion is multiplied at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, NodeProto, helper, numpy_helper
from onnx import TensorProto as T

DOMAIN = "tritkit"
DOMAIN_VERSION = 1
OPSET = 18
IR_VERSION = 8  # the first with functions

_INT, _INTS = AttributeProto.INT, AttributeProto.INTS
_CONV_ATTRIBUTES = {"strides": _INTS, "pads": _INTS, "dilations": _INTS, "group": _INT}


def make_functions(names: Sequence[str]) -> list[FunctionProto]:
    """The functions of these names, sorted by name. Raises KeyError for a name that is not ours."""
    return [_BODIES[name]() for name in sorted(set(names))]


def function_names() -> list[str]:
    """All operations of the `tritkit` domain."""
    return sorted(_BODIES)


class _Body:
    """Collects the nodes of a function body."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self._used = 0

    def __call__(
        self, op: str, *inputs: str, out: str | None = None, refs: Mapping[str, int] | None = None, **attrs: Any
    ) -> str:
        """Append a node and return its output; `refs` are attributes taken from the call."""
        if out is None:
            self._used += 1
            out = f"t{self._used}"
        node = helper.make_node(op, list(inputs), [out], **attrs)
        for name, kind in (refs or {}).items():
            attribute = node.attribute.add()
            attribute.name, attribute.ref_attr_name, attribute.type = name, name, kind
        self.nodes.append(node)
        return out

    def constant(self, value: object, dtype: type) -> str:
        return self("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def float32(self, x: str) -> str:
        return self("Cast", x, to=T.FLOAT)

    def centred(self, x: str, zero: str) -> str:
        """f32(x − zero): both are small integers, so the float difference is exact."""
        return self("Sub", self.float32(x), self.float32(zero))

    def rounded(self, y: str, zero: str) -> str:
        """clip(rint(y) + zero); the function's result."""
        return self("QuantizeLinear", y, self.constant(1.0, np.float32), zero, out="y")

    def attribute(self, name: str, field: str, kind: int, out: str) -> str:
        """An attribute of the call as a tensor; `field` is Constant's for this kind."""
        node = helper.make_node("Constant", [], [out])
        attribute = node.attribute.add()
        attribute.name, attribute.ref_attr_name, attribute.type = field, name, kind
        self.nodes.append(node)
        return out

    def weight(self, w: str, codebook: str) -> str:
        """int8 weights [O, K] of packed codes, K from the attribute w_shape."""
        rows = self.padded_codes(w)
        return self.without_padding(self("GatherElements", codebook, rows, axis=1))

    def padded_codes(self, w: str) -> str:
        """int64 codes 0 to 3, four for each byte of the packed rows."""
        self.attribute("w_shape", "value_ints", _INTS, "wshape")
        shifts = self.constant([0, 2, 4, 6], np.uint8)
        spread = self("BitShift", self("Unsqueeze", w, self.constant([-1], np.int64)), shifts, direction="RIGHT")
        codes = self("BitwiseAnd", spread, self.constant(3, np.uint8))
        return self("Reshape", self("Cast", codes, to=T.INT64), self.constant([0, -1], np.int64))

    def without_padding(self, rows: str) -> str:
        """The first K of each row."""
        one, end = self.constant([1], np.int64), self.constant([2**31 - 1], np.int64)
        k = self("ReduceProd", self("Slice", "wshape", one, end), keepdims=1)
        return self("Slice", rows, self.constant([0], np.int64), k, one)

    def group_weight(self, w: str, plus: str, minus: str) -> str:
        """int8 weights [O, I, ...] of packed codes and the multipliers of each group of input channels."""
        codes = self("Reshape", self.without_padding(self.padded_codes(w)), "wshape")
        size = self.attribute("group_size", "value_int", _INT, "group")
        channels = self("Gather", "wshape", self.constant(1, np.int64))
        each = self("Range", self.constant(0, np.int64), channels, self.constant(1, np.int64))
        group = self("Div", each, size)
        above, below = (self("Cast", self("Gather", side, group, axis=1), to=T.INT32) for side in (plus, minus))
        zero = self.constant(0, np.int32)  # int32, as runtimes have no Where of int8
        negative = self("Where", self("Equal", codes, self.constant(3, np.int64)), self("Neg", below), zero)
        values = self("Where", self("Equal", codes, self.constant(1, np.int64)), above, negative)
        return self("Cast", values, to=T.INT8)

    def function(self, name: str, inputs: str, attributes: Sequence[str] = ()) -> FunctionProto:
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_function(DOMAIN, name, inputs.split(), ["y"], self.nodes, opset, list(attributes))


_WEIGHTS = {"Ternary": "w codebook", "TernaryGroup": "w plus minus", "Int8": "w"}  # inputs
_SHAPES = {"Ternary": ["w_shape"], "TernaryGroup": ["w_shape", "group_size"], "Int8": []}  # attributes


def _weight(body: _Body, kind: str) -> str:
    """int8 weights: [O, K], or of the shape w_shape for groups."""
    if kind == "Int8":
        return "w"
    return body.weight("w", "codebook") if kind == "Ternary" else body.group_weight("w", "plus", "minus")


def _qconv(kind: str) -> FunctionProto:
    body = _Body()
    weight = _weight(body, kind)
    if kind == "Ternary":
        weight = body("Reshape", weight, "wshape")
    operands = ["x", "x_scale", "x_zero", weight, "w_scale", body.constant(0, np.int8), "y_scale", "y_zero", "bias"]
    body("QLinearConv", *operands, out="y", refs=_CONV_ATTRIBUTES)
    inputs = f"x x_scale x_zero {_WEIGHTS[kind]} w_scale bias y_scale y_zero"
    return body.function(f"{kind}QConv", inputs, [*_SHAPES[kind], *_CONV_ATTRIBUTES])


def _accumulated(body: _Body, weight: str) -> str:
    """f32(acc). The bias is added as an integer, which also keeps runtimes from fusing the product with the scale."""
    product = body("MatMulInteger", "x", body("Transpose", weight, perm=[1, 0]), "x_zero")
    return body.float32(body("Add", product, "bias"))


def _gemm(kind: str, quantized: bool) -> FunctionProto:
    body = _Body()
    acc = _accumulated(body, _weight(body, kind))
    factor = body("Mul", "x_scale", "w_scale")
    inputs = f"x x_scale x_zero {_WEIGHTS[kind]} w_scale bias"
    if quantized:
        body.rounded(body("Mul", acc, body("Div", factor, "y_scale")), "y_zero")
        inputs += " y_scale y_zero"
    else:
        body("Mul", acc, factor, out="y")
    return body.function(kind + ("QGemm" if quantized else "Gemm"), inputs, _SHAPES[kind])


def _qadd() -> FunctionProto:
    body = _Body()
    a = body("Mul", body.centred("a", "a_zero"), body("Div", "a_scale", "y_scale"))
    b = body("Mul", body.centred("b", "b_zero"), body("Div", "b_scale", "y_scale"))
    body.rounded(body("Add", a, b), "y_zero")
    return body.function("QAdd", "a a_scale a_zero b b_scale b_zero y_scale y_zero")


def _qaverage_pool() -> FunctionProto:
    body = _Body()
    columns = body("MatMul", body.centred("x", "x_zero"), body("Transpose", "cols", perm=[1, 0]))
    total = body("MatMul", "rows", columns)  # integers below 2^24: exact in any order
    # through int32, so that the factor cannot be folded into the matrices
    acc = body.float32(body("Cast", total, to=T.INT32))
    body.rounded(body("Mul", acc, body("Div", body("Div", "x_scale", "y_scale"), "count")), "y_zero")
    return body.function("QAveragePool", "x x_scale x_zero rows cols count y_scale y_zero")


def _qrescale() -> FunctionProto:
    body = _Body()
    body.rounded(body("Mul", body.centred("x", "x_zero"), body("Div", "x_scale", "y_scale")), "y_zero")
    return body.function("QRescale", "x x_scale x_zero y_scale y_zero")


_BODIES: dict[str, Callable[[], FunctionProto]] = {
    "TernaryQConv": lambda: _qconv("Ternary"),
    "TernaryQGemm": lambda: _gemm("Ternary", quantized=True),
    "TernaryGemm": lambda: _gemm("Ternary", quantized=False),
    "TernaryGroupQConv": lambda: _qconv("TernaryGroup"),
    "TernaryGroupQGemm": lambda: _gemm("TernaryGroup", quantized=True),
    "TernaryGroupGemm": lambda: _gemm("TernaryGroup", quantized=False),
    "Int8QGemm": lambda: _gemm("Int8", quantized=True),
    "Int8Gemm": lambda: _gemm("Int8", quantized=False),
    "QAdd": _qadd,
    "QAveragePool": _qaverage_pool,
    "QRescale": _qrescale,
}
