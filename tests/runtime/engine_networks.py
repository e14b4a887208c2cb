"""Small network files written by hand with onnx.helper, as docs/format.md says. Function bodies are left out:
our reader ignores them, and these tests compare with `oracle`, not with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def pack(codes: np.ndarray) -> np.ndarray:
    """Codes in {-1, 0, 1}, [O, ...], to bytes [O, ceil(K / 4)]: four a byte, the first in the lowest bits."""
    rows = codes.reshape(codes.shape[0], -1)
    out = np.zeros((rows.shape[0], (rows.shape[1] + 3) // 4), np.uint8)
    for k in range(rows.shape[1]):
        out[:, k // 4] |= (np.array([0, 1, 3], np.uint8)[rows[:, k]] << (k % 4 * 2)).astype(np.uint8)
    return out


def _groups(group_size: int | None) -> tuple[str, dict[str, int]]:
    """What the operation's name begins with, and its attribute."""
    return ("Ternary", {}) if group_size is None else ("TernaryGroup", {"group_size": group_size})


class Builder:
    """Adds nodes and remembers each tensor's channels, scale and zero point; `model()` is the file's bytes."""

    def __init__(self, seed: int, *shape: int, symmetric: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.symmetric = symmetric  # Wp = Wn in every ternary layer without groups
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.quant: dict[str, tuple[str, str]] = {}
        self.outputs: list[tuple[str, int]] = []
        self.inputs = [("image", shape)]

    def constant(self, value: Any, dtype: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def fresh(self, zero: int | None = None, scale: float | None = None) -> tuple[str, str]:
        scale = float(self.rng.uniform(0.02, 0.1)) if scale is None else scale
        zero = int(self.rng.integers(0, 256)) if zero is None else zero
        return self.constant(scale, np.float32), self.constant(zero, np.uint8)

    def node(
        self, op: str, inputs: list[str], quant: tuple[str, str] | None, domain: str = "", **attributes: Any
    ) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [out], name=f"layer{len(self.nodes)}.{op}", domain=domain, **attributes)
        )
        if quant:
            self.quant[out] = quant
        return out

    def q(self, x: str) -> list[str]:
        return [x, *self.quant[x]]

    def quantize(self, x: str = "image", zero: int = 120) -> str:
        quant = self.fresh(zero)
        return self.node("QuantizeLinear", [x, *quant], quant)

    def dequantize(self, x: str) -> str:
        return self.node("DequantizeLinear", self.q(x), None)

    def _weights(
        self, shape: tuple[int, ...], ternary: bool, density: float, group_size: int | None = None
    ) -> tuple[list[str], list[str]]:
        """Inputs for the weight, and for what its codes stand for."""
        if not ternary:
            return [self.constant(self.rng.integers(-64, 65, shape), np.int8)], []
        codes = self.rng.choice([-1, 0, 1], shape, p=[density / 2, 1 - density, density / 2])
        if group_size is not None:
            sides = (shape[0], -(-shape[1] // group_size), *shape[2:])
            packed = [self.constant(pack(codes), np.uint8)]
            return packed, [self.constant(self.rng.integers(1, 65, sides), np.int8) for _ in range(2)]
        book = np.zeros((shape[0], 4), np.int8)
        book[:, 1] = self.rng.integers(1, 65, shape[0])
        book[:, 3] = -book[:, 1] if self.symmetric else -self.rng.integers(1, 65, shape[0])
        return [self.constant(pack(codes), np.uint8)], [self.constant(book, np.int8)]

    def _scale_bias(self, shape: tuple[int, ...]) -> tuple[str, str]:
        k = int(np.prod(shape[1:]))
        scale = self.rng.uniform(0.3, 1.5, shape[0]) / (20 * np.sqrt(k))
        bias = self.rng.integers(-900 * k, 900 * k + 1, shape[0])
        return self.constant(scale, np.float32), self.constant(bias, np.int32)

    def conv(
        self,
        x: str,
        outputs: int,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        ternary: bool = True,
        group: int = 1,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (1, 1, 1, 1),
        dilations: tuple[int, int] = (1, 1),
        density: float = 0.5,
        zero: int | None = None,
        group_size: int | None = None,
    ) -> str:
        shape = (outputs, channels // group, *kernel)
        w, book = self._weights(shape, ternary, density, group_size)
        scale, bias = self._scale_bias(shape)
        quant = self.fresh(zero)
        window: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
        if ternary:
            inputs = [*self.q(x), *w, *book, scale, bias, *quant]
            op, sizes = _groups(group_size)
            return self.node(f"{op}QConv", inputs, quant, "tritkit", w_shape=shape, **sizes, **window)
        inputs = [*self.q(x), *w, scale, self.constant(0, np.int8), *quant, bias]
        return self.node("QLinearConv", inputs, quant, kernel_shape=kernel, **window)

    def linear(
        self,
        x: str,
        outputs: int,
        inputs: int,
        *,
        ternary: bool = True,
        to_float: bool = True,
        group_size: int | None = None,
    ) -> str:
        shape = (outputs, inputs)
        w, book = self._weights(shape, ternary, 0.6, group_size)
        scale, bias = self._scale_bias(shape)
        quant = None if to_float else self.fresh()
        kind, sizes = _groups(group_size)
        op = (kind if ternary else "Int8") + ("Gemm" if to_float else "QGemm")
        attributes = {"w_shape": shape, **sizes} if ternary else {}
        return self.node(op, [*self.q(x), *w, *book, scale, bias, *(quant or ())], quant, "tritkit", **attributes)

    def add(self, a: str, b: str) -> str:
        quant = self.fresh()
        return self.node("QAdd", [*self.q(a), *self.q(b), *quant], quant, "tritkit")

    def rescale(self, x: str) -> str:
        quant = self.fresh()
        return self.node("QRescale", [*self.q(x), *quant], quant, "tritkit")

    def average_pool(self, x: str, rows: list[tuple[int, int]], cols: list[tuple[int, int]], h: int, w: int) -> str:
        quant = self.fresh()
        matrices = []
        for runs, size in ((rows, h), (cols, w)):
            m = np.zeros((len(runs), size), np.float32)
            for i, (begin, end) in enumerate(runs):
                m[i, begin:end] = 1
            matrices.append(self.constant(m, np.float32))
        count = np.outer([e - b for b, e in rows], [e - b for b, e in cols])
        inputs = [*self.q(x), *matrices, self.constant(count, np.float32), *quant]
        return self.node("QAveragePool", inputs, quant, "tritkit")

    def moved(self, op: str, xs: list[str], constants: list[tuple[Any, Any]], **attributes: Any) -> str:
        """An operation that keeps scale and zero point."""
        inputs = [*xs, *(self.constant(value, dtype) for value, dtype in constants)]
        return self.node(op, inputs, self.quant.get(xs[0]), **attributes)

    def output(self, x: str, rank: int) -> None:
        self.outputs.append((x, rank))

    def proto(self, raw: bool = True, **metadata: str) -> onnx.ModelProto:
        constants = [
            numpy_helper.from_array(value, name)
            if raw
            else helper.make_tensor(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value.flatten().tolist()
            )
            for name, value in self.constants.items()
        ]
        ins = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in self.inputs]
        outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in self.outputs]
        graph = helper.make_graph(self.nodes, "network", ins, outs, constants)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("tritkit", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        helper.set_model_props(model, {"tritkit.format": "1", **metadata})
        return model

    def model(self, raw: bool = True, **metadata: str) -> bytes:
        return self.proto(raw, **metadata).SerializeToString(deterministic=True)


def small_network(seed: int = 0) -> Builder:
    """A residual network that uses most operations, at odd seeds with Wp = Wn; input [N, 3, 9, 8], output [N, 5]."""
    b = Builder(seed, 3, 9, 8, symmetric=seed % 2 == 1)
    x = b.conv(b.quantize(), 10, 3, ternary=False, zero=0)
    y = b.conv(x, 10, 10)
    y = b.conv(y, 10, 10)
    x = b.add(x, y)
    short = b.conv(x, 18, 10, (1, 1), strides=(2, 2), pads=(0, 0, 0, 0))
    y = b.conv(b.conv(x, 18, 10, strides=(2, 2)), 18, 18)
    x = b.add(y, short)
    x = b.average_pool(x, [(0, 3), (2, 5)], [(0, 2), (1, 4)], 5, 4)
    x = b.moved("Reshape", [x], [([0, -1], np.int64)])
    b.output(b.linear(x, 5, 72, ternary=False), 2)
    return b


def group_network(seed: int = 0) -> Builder:
    """Convolutions and linear layers with multipliers for groups of weights, remainders among them; input [N, 3, 9, 8],
    output [N, 5]."""
    b = Builder(seed, 3, 9, 8)
    x = b.conv(b.quantize(), 10, 3, group_size=2, zero=0)
    y = b.conv(x, 10, 10, group_size=4)
    x = b.add(x, b.conv(y, 10, 10, group_size=1, group=5))
    x = b.conv(x, 66, 10, (1, 1), strides=(2, 2), pads=(0, 0, 0, 0), group_size=10)
    x = b.conv(x, 7, 66, (3, 2), pads=(0, 0, 0, 0), group_size=64)
    x = b.moved("Reshape", [x], [([0, -1], np.int64)])
    x = b.linear(x, 19, 63, to_float=False, group_size=8)
    b.output(b.linear(x, 5, 19, group_size=16), 2)
    return b
