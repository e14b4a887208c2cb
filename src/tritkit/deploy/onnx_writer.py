"""`Graph` → ONNX, as docs/format.md describes the file. The same graph gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tritkit.deploy import graph as g
from tritkit.deploy.functions import DOMAIN, DOMAIN_VERSION, IR_VERSION, OPSET, make_functions
from tritkit.ternary import pack_codes


def to_onnx(graph: g.Graph) -> ModelProto:
    """The model, with the functions it uses; checked by onnx.checker."""
    writer = _Writer(graph)
    model = writer.model([helper.make_opsetid(DOMAIN, DOMAIN_VERSION)], _metadata(graph))
    model.functions.extend(make_functions([n.op_type for n in writer.nodes if n.domain == DOMAIN]))
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(value: g.Value) -> ValueInfoProto:
    kind = TensorProto.FLOAT if value.quant is None else TensorProto.UINT8
    return helper.make_tensor_value_info(value.name, kind, ["N", *value.shape])


_DEFAULTS = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1}


def _geometry(node: g.QConv | g.FloatConv) -> dict[str, Any]:
    """The attributes that differ from ONNX's defaults."""
    return {k: getattr(node, k) for k, default in _DEFAULTS.items() if getattr(node, k) != default}


def _ternary_shape(weight: g.TernaryWeight) -> dict[str, Any]:
    """The attributes that say how the codes are to be read."""
    shape: dict[str, Any] = {"w_shape": list(weight.shape)}
    return shape if weight.group_size is None else {**shape, "group_size": weight.group_size}


def _metadata(graph: g.Graph) -> dict[str, str]:
    """metadata_props; of the layers only what the nodes do not say."""
    props = dict(graph.metadata)
    if "tritkit.layers" in props:
        rows = [row for row in json.loads(props["tritkit.layers"]) if row.get("method")]
        kept = [{k: row[k] for k in ("name", "method", "wp", "wn") if k in row} for row in rows]
        props["tritkit.layers"] = json.dumps(kept, separators=(",", ":"))
    return props


class _Writer:
    """Nodes and initializers. Equal initializers are stored once; names are short, since each is stored several times:
    the number of the node that made the tensor or has the weight, and what it is.
    """

    def __init__(self, graph: g.Graph) -> None:
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._stored: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._taken = set(graph.values)
        self._number = {node.output: i for i, node in enumerate(graph.nodes)}

    def model(self, domains: Sequence[OperatorSetIdProto], metadata: Mapping[str, str]) -> ModelProto:
        """Write all nodes and return the model, without functions."""
        for node in self.graph.nodes:
            self.write(node)
        values = self.graph.values
        proto = helper.make_graph(
            self.nodes,
            "tritkit",
            [_value_info(values[name]) for name in self.graph.inputs],
            [_value_info(values[name]) for name in self.graph.outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", OPSET), *domains]
        made = helper.make_model(proto, producer_name="tritkit", ir_version=IR_VERSION, opset_imports=opsets)
        helper.set_model_props(made, dict(metadata))
        return made

    def store(self, value: Any, dtype: Any, output: str, what: str) -> str:
        """The name of an initializer with this content, made if there is none; `output` is that of its node."""
        hint = f"{self._number[output]}.{what}"
        array = np.array(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            name, i = hint, 1
            while name in self._taken:
                name, i = f"{hint}_{i}", i + 1
            self._taken.add(name)
            self._stored[key] = name
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._stored[key]

    def emit(self, node: g.Node, op: str, *inputs: str, domain: str = "", **attributes: Any) -> None:
        """Append the ONNX node; without inputs given, those of the graph's node."""
        made = helper.make_node(op, inputs or node.inputs, [node.output], node.name, domain=domain, **attributes)
        self.nodes.append(made)

    def quant(self, value: str) -> tuple[str, str]:
        """Scale and zero point of a tensor."""
        quant = self.graph.quant(value)
        scale = self.store(quant.scale, np.float32, value, "scale")
        return scale, self.store(quant.zero_point, np.uint8, value, "zero")

    def quantized(self, value: str) -> tuple[str, str, str]:
        """A tensor with its scale and zero point."""
        return value, *self.quant(value)

    def weight(self, node: g.QConv | g.QGemm) -> tuple[str, ...]:
        """The inputs that hold the weight: packed codes with a codebook or with the groups' multipliers, or int8."""
        weight = node.weight
        if isinstance(weight, g.Int8Weight):
            return (self.store(weight.values, np.int8, node.output, "weight"),)
        packed = self.store(pack_codes(torch.from_numpy(weight.codes)).numpy(), np.uint8, node.output, "codes")
        if weight.group_size is not None:
            plus = self.store(weight.p, np.int8, node.output, "plus")
            return packed, plus, self.store(weight.n, np.int8, node.output, "minus")  # stored once where equal
        zero = np.zeros_like(weight.p)
        book = np.stack([zero, weight.p, zero, -weight.n], axis=1)
        return packed, self.store(book, np.int8, node.output, "codebook")

    def scale_and_bias(self, node: g.QConv | g.QGemm) -> tuple[str, str]:
        scale = self.store(node.w_scale, np.float32, node.output, "w_scale")
        return scale, self.store(node.bias, np.int32, node.output, "bias")

    def float_weight(self, node: g.FloatConv | g.FloatGemm) -> tuple[str, str]:
        weight = self.store(node.weight, np.float32, node.output, "weight")
        return weight, self.store(node.bias, np.float32, node.output, "bias")

    # ---- one writer an operation

    @singledispatchmethod
    def write(self, node: g.Node) -> None:
        raise TypeError(f"no ONNX form for {type(node).__name__}")

    @write.register
    def _(self, node: g.Quantize) -> None:
        self.emit(node, "QuantizeLinear", node.inputs[0], *self.quant(node.output))

    @write.register
    def _(self, node: g.Dequantize) -> None:
        self.emit(node, "DequantizeLinear", *self.quantized(node.inputs[0]))

    @write.register
    def _(self, node: g.QConv) -> None:
        x, weight, y = self.quantized(node.inputs[0]), self.weight(node), self.quant(node.output)
        scale, bias = self.scale_and_bias(node)
        if isinstance(node.weight, g.TernaryWeight):
            inputs = [*x, *weight, scale, bias, *y]
            op = g.operation(node.weight, conv=True, quantized=True)
            self.emit(node, op, *inputs, domain=DOMAIN, **_ternary_shape(node.weight), **_geometry(node))
        else:
            zero = self.store(0, np.int8, node.output, "w_zero")
            inputs = [*x, *weight, scale, zero, *y, bias]
            self.emit(node, "QLinearConv", *inputs, kernel_shape=list(node.weight.shape[2:]), **_geometry(node))

    @write.register
    def _(self, node: g.QGemm) -> None:
        quantized = self.graph.values[node.output].quant is not None
        inputs = [*self.quantized(node.inputs[0]), *self.weight(node), *self.scale_and_bias(node)]
        inputs += self.quant(node.output) if quantized else ()
        op = g.operation(node.weight, conv=False, quantized=quantized)
        shape = _ternary_shape(node.weight) if isinstance(node.weight, g.TernaryWeight) else {}
        self.emit(node, op, *inputs, domain=DOMAIN, **shape)

    @write.register
    def _(self, node: g.FloatConv) -> None:
        kernel = list(node.weight.shape[2:])
        self.emit(node, "Conv", *node.inputs, *self.float_weight(node), kernel_shape=kernel, **_geometry(node))

    @write.register
    def _(self, node: g.FloatGemm) -> None:
        self.emit(node, "Gemm", *node.inputs, *self.float_weight(node), transB=1)

    @write.register
    def _(self, node: g.QAdd) -> None:
        a, b = node.inputs
        self.emit(node, "QAdd", *self.quantized(a), *self.quantized(b), *self.quant(node.output), domain=DOMAIN)

    @write.register
    def _(self, node: g.QAveragePool) -> None:
        tables = [self.store(getattr(node, t), np.float32, node.output, t) for t in ("rows", "cols", "count")]
        inputs = [*self.quantized(node.inputs[0]), *tables, *self.quant(node.output)]
        self.emit(node, "QAveragePool", *inputs, domain=DOMAIN)

    @write.register
    def _(self, node: g.QRescale) -> None:
        self.emit(node, "QRescale", *self.quantized(node.inputs[0]), *self.quant(node.output), domain=DOMAIN)

    @write.register
    def _(self, node: g.MaxPool) -> None:
        window: dict[str, Any] = {"kernel_shape": node.kernel, "strides": node.strides, "pads": node.pads}
        self.emit(node, "MaxPool", dilations=node.dilations, ceil_mode=0, **window)

    @write.register
    def _(self, node: g.Clip) -> None:
        limits = [self.store(v, np.uint8, node.output, "limit") for v in (node.low, node.high)]
        self.emit(node, "Clip", *node.inputs, *limits)

    @write.register
    def _(self, node: g.Pad) -> None:
        pads = self.store([0, *node.before, 0, *node.after], np.int64, node.output, "pads")
        self.emit(node, "Pad", *node.inputs, pads, self.quant(node.output)[1], mode="constant")

    @write.register
    def _(self, node: g.Slice) -> None:
        axes = range(1, len(node.starts) + 1)
        parts = {"starts": node.starts, "ends": node.stops, "axes": axes, "steps": node.steps}
        names = [self.store(v, np.int64, node.output, k) for k, v in parts.items()]
        self.emit(node, "Slice", *node.inputs, *names)

    @write.register
    def _(self, node: g.Concat) -> None:
        self.emit(node, "Concat", axis=node.axis)

    @write.register
    def _(self, node: g.Reshape) -> None:
        shape = self.store([0, *self.graph.values[node.output].shape], np.int64, node.output, "shape")
        self.emit(node, "Reshape", *node.inputs, shape)

    @write.register
    def _(self, node: g.FloatClip) -> None:
        if node.low == 0 and np.isinf(node.high):
            self.emit(node, "Relu")
            return
        limits = [self.store(v, np.float32, node.output, "limit") for v in (node.low, node.high)]
        self.emit(node, "Clip", *node.inputs, *limits)
