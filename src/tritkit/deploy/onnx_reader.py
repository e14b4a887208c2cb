"""An ONNX file written by `to_onnx` → `Graph`, so that the NumPy reference and the simulation can run a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from tritkit.deploy import graph as g
from tritkit.errors import ModelFileError, UnsupportedError
from tritkit.ternary import unpack_codes

Array = NDArray[Any]
Shape = tuple[int, ...]


def from_onnx(model: str | Path | ModelProto) -> g.Graph:
    """The graph in a file of docs/format.md, flavour "function".

    Raises ModelFileError for a file that is not ONNX or contradicts the format, UnsupportedError for other operations.
    """
    proto = model if isinstance(model, ModelProto) else _load(Path(model))
    try:
        return _Reader(proto).graph()
    except (KeyError, IndexError, ValueError, TypeError) as e:
        if isinstance(e, UnsupportedError):
            raise
        raise ModelFileError(f"{'the model' if model is proto else model} is not as docs/format.md says: {e}") from e


def _load(path: Path) -> ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError as e:
        raise ModelFileError(f"{path} does not exist") from e
    except (DecodeError, OSError) as e:
        raise ModelFileError(f"{path} is not an ONNX file: {e}") from e


class _Reader:
    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.values: dict[str, g.Value] = {}

    def graph(self) -> g.Graph:
        proto = self.model.graph
        for info in proto.input:
            self.values[info.name] = g.Value(info.name, _shape_of(info))
        nodes = tuple(self._node(node) for node in proto.node)
        graph = g.Graph(
            tuple(v.name for v in proto.input),
            tuple(v.name for v in proto.output),
            self.values,
            nodes,
            {p.key: p.value for p in self.model.metadata_props},
        )
        graph.validate()
        return graph

    def _node(self, node: NodeProto) -> g.Node:
        read = _READERS.get(node.op_type)
        if read is None:
            raise UnsupportedError(f"node {node.name}: operation {node.op_type} is not one of docs/format.md")
        return read(self, node)

    # ---- pieces

    def quant(self, scale: str, zero: str) -> g.Quant:
        return g.Quant(float(self.constants[scale]), int(self.constants[zero]))

    def made(self, node: NodeProto, shape: Shape, quant: g.Quant | None) -> dict[str, Any]:
        """Enter the node's output and return its common fields with one input."""
        self.values[node.output[0]] = g.Value(node.output[0], tuple(int(d) for d in shape), quant)
        return {"name": node.name, "inputs": (node.input[0],), "output": node.output[0]}

    def shape(self, name: str) -> Shape:
        return self.values[name].shape

    def ints(self, name: str) -> Shape:
        return tuple(int(v) for v in self.constants[name])


def _shape_of(info: ValueInfoProto) -> Shape:
    return tuple(d.dim_value for d in info.type.tensor_type.shape.dim[1:])


def _attributes(node: NodeProto) -> dict[str, Any]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    given = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in found.items()}
    return {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1, **given}


def _window(size: int, kernel: int, stride: int, pads: int, dilation: int) -> int:
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def _plane(shape: Shape, kernel: Shape, a: dict[str, Any]) -> Shape:
    """[H, W] after a window of the node's geometry."""
    pads, dilations = a["pads"], a["dilations"]
    return tuple(
        _window(shape[1 + i], kernel[i], a["strides"][i], pads[i] + pads[2 + i], dilations[i]) for i in range(2)
    )


def _quantize(r: _Reader, node: NodeProto) -> g.Node:
    return g.Quantize(**r.made(node, r.shape(node.input[0]), r.quant(*node.input[1:3])))


def _dequantize(r: _Reader, node: NodeProto) -> g.Node:
    return g.Dequantize(**r.made(node, r.shape(node.input[0]), None))


def _ternary(r: _Reader, node: NodeProto) -> g.TernaryWeight:
    a = _attributes(node)
    packed = torch.from_numpy(r.constants[node.input[3]].copy())
    codes = unpack_codes(packed, a["w_shape"]).numpy()
    if _has_groups(node):
        plus, minus = (r.constants[name] for name in node.input[4:6])
        return g.TernaryWeight(codes, plus, minus, group_size=a["group_size"])
    book = r.constants[node.input[4]]
    return g.TernaryWeight(codes, book[:, 1], -book[:, 3])


def _has_groups(node: NodeProto) -> bool:
    return node.op_type.startswith("TernaryGroup")


def _geometry(a: dict[str, Any]) -> dict[str, Any]:
    return {k: a[k] for k in ("strides", "pads", "dilations", "group")}


def _conv(r: _Reader, node: NodeProto) -> g.Node:
    a, i = _attributes(node), node.input
    if node.op_type == "Conv":
        weight, bias = r.constants[i[1]], r.constants[i[2]]
        shape = (len(weight), *_plane(r.shape(i[0]), weight.shape[2:], a))
        return g.FloatConv(**r.made(node, shape, None), weight=weight, bias=bias, **_geometry(a))
    weights: g.Weight
    if node.op_type.startswith("Ternary"):
        scale, bias, *y = i[6 if _has_groups(node) else 5 :]
        weights, quant = _ternary(r, node), r.quant(*y)
    else:
        weights, scale, bias, quant = g.Int8Weight(r.constants[i[3]]), i[4], i[8], r.quant(i[6], i[7])
    shape = (weights.shape[0], *_plane(r.shape(i[0]), weights.shape[2:], a))
    layer: dict[str, Any] = {"weight": weights, "w_scale": r.constants[scale], "bias": r.constants[bias]}
    return g.QConv(**r.made(node, shape, quant), **layer, **_geometry(a))


def _gemm(r: _Reader, node: NodeProto) -> g.Node:
    i = node.input
    if node.op_type == "Gemm":
        weight = r.constants[i[1]]
        return g.FloatGemm(**r.made(node, (len(weight),), None), weight=weight, bias=r.constants[i[2]])
    ternary = node.op_type.startswith("Ternary")
    weights: g.Weight = _ternary(r, node) if ternary else g.Int8Weight(r.constants[i[3]])
    rest = list(i[6 if _has_groups(node) else 5 if ternary else 4 :])
    quant = r.quant(rest[2], rest[3]) if len(rest) > 2 else None
    layer: dict[str, Any] = {"weight": weights, "w_scale": r.constants[rest[0]], "bias": r.constants[rest[1]]}
    return g.QGemm(**r.made(node, (weights.shape[0],), quant), **layer)


def _add(r: _Reader, node: NodeProto) -> g.Node:
    fields = r.made(node, r.shape(node.input[0]), r.quant(*node.input[6:8]))
    return g.QAdd(**{**fields, "inputs": (node.input[0], node.input[3])})


def _average(r: _Reader, node: NodeProto) -> g.Node:
    rows, cols, count = (r.constants[name] for name in node.input[3:6])
    shape = (r.shape(node.input[0])[0], len(rows), len(cols))
    return g.QAveragePool(**r.made(node, shape, r.quant(*node.input[6:8])), rows=rows, cols=cols, count=count)


def _rescale(r: _Reader, node: NodeProto) -> g.Node:
    return g.QRescale(**r.made(node, r.shape(node.input[0]), r.quant(*node.input[3:5])))


def _max_pool(r: _Reader, node: NodeProto) -> g.Node:
    a, x = _attributes(node), r.values[node.input[0]]
    shape = (x.shape[0], *_plane(x.shape, a["kernel_shape"], a))
    fields = {"kernel": a["kernel_shape"], "strides": a["strides"], "pads": a["pads"], "dilations": a["dilations"]}
    return g.MaxPool(**r.made(node, shape, x.quant), **fields)


def _clip(r: _Reader, node: NodeProto) -> g.Node:
    x = r.values[node.input[0]]
    fields = r.made(node, x.shape, x.quant)
    if node.op_type == "Relu":
        return g.FloatClip(**fields, low=0.0, high=float("inf"))
    low, high = (r.constants[name] for name in node.input[1:3])
    if x.quant is None:
        return g.FloatClip(**fields, low=float(low), high=float(high))
    return g.Clip(**fields, low=int(low), high=int(high))


def _pad(r: _Reader, node: NodeProto) -> g.Node:
    x, pads = r.values[node.input[0]], r.ints(node.input[1])
    before, after = pads[1 : len(pads) // 2], pads[len(pads) // 2 + 1 :]
    shape = tuple(b + d + a for b, d, a in zip(before, x.shape, after, strict=True))
    return g.Pad(**r.made(node, shape, x.quant), before=before, after=after)


def _slice(r: _Reader, node: NodeProto) -> g.Node:
    x = r.values[node.input[0]]
    starts, stops, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    for start, stop, axis, step in zip(*(r.ints(name) for name in node.input[1:5]), strict=True):
        starts[axis - 1], stops[axis - 1], steps[axis - 1] = start, stop, step
    shape = tuple(-(-(e - s) // t) for s, e, t in zip(starts, stops, steps, strict=True))
    fields = r.made(node, shape, x.quant)
    return g.Slice(**fields, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _concat(r: _Reader, node: NodeProto) -> g.Node:
    axis, shape = _attributes(node)["axis"], list(r.shape(node.input[0]))
    shape[axis - 1] = sum(r.shape(x)[axis - 1] for x in node.input)
    fields = r.made(node, tuple(shape), r.values[node.input[0]].quant)
    return g.Concat(**{**fields, "inputs": tuple(node.input)}, axis=axis)


def _reshape(r: _Reader, node: NodeProto) -> g.Node:
    x = r.values[node.input[0]]
    return g.Reshape(**r.made(node, r.ints(node.input[1])[1:], x.quant))


_READERS: dict[str, Callable[[_Reader, NodeProto], g.Node]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    **dict.fromkeys(("TernaryQConv", "TernaryGroupQConv", "QLinearConv", "Conv"), _conv),
    **dict.fromkeys(("TernaryQGemm", "TernaryGemm", "TernaryGroupQGemm", "TernaryGroupGemm"), _gemm),
    **dict.fromkeys(("Int8QGemm", "Int8Gemm", "Gemm"), _gemm),
    "QAdd": _add,
    "QAveragePool": _average,
    "QRescale": _rescale,
    "MaxPool": _max_pool,
    **dict.fromkeys(("Clip", "Relu"), _clip),
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _concat,
    "Reshape": _reshape,
}
