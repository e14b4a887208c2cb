"""The weighted nodes of an ONNX file and their weights: tritkit's operations, and those of other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError
from tritkit.inspection._wire import Model, Node, Tensor
from tritkit.inspection.weights import LayerWeights, recognised

Array = NDArray[Any]
_ONE = np.ones(1, np.float32)


class Op(NamedTuple):
    """Where a node of this kind has its weight, its scale, and what else belongs to the layer."""

    kind: str
    bits: int
    weight: int
    others: tuple[int, ...] = ()
    scale: int | None = None
    rows: int = 0  # the axis of the outputs
    zero: int | None = None  # zero point of the weight


_TERNARY = Op("ternary", 2, 3, (4, 5, 6), 5)
_GROUPED = Op("ternary", 2, 3, (4, 5, 6, 7), 6)
OURS = {
    **dict.fromkeys(("TernaryQConv", "TernaryQGemm", "TernaryGemm"), _TERNARY),
    **dict.fromkeys(("TernaryGroupQConv", "TernaryGroupQGemm", "TernaryGroupGemm"), _GROUPED),
    **dict.fromkeys(("Int8QGemm", "Int8Gemm"), Op("int8", 8, 3, (4, 5), 4)),
}
_STANDARD = {
    "QLinearConv": Op("int8", 8, 3, (4, 5, 8), 4, zero=5),
    "QLinearMatMul": Op("int8", 8, 3, (4, 5), 4, rows=1, zero=5),
    "Conv": Op("float32", 32, 1, (2,)),
    "Gemm": Op("float32", 32, 1, (2,), rows=1),
    "MatMul": Op("float32", 32, 1, rows=1),
    "ConvInteger": Op("int8", 8, 1, (3,), zero=3),
    "MatMulInteger": Op("int8", 8, 1, (3,), rows=1, zero=3),
}


class Layer(NamedTuple):
    """A weighted node: `weight` its tensor, `tensors` all that belong to it, `scale` and `zero` point if any."""

    node: Node
    op: Op
    weight: Tensor
    tensors: tuple[Tensor, ...]
    scale: Tensor | None
    zero: Tensor | None


def find_layers(model: Model) -> Iterator[Layer]:
    """Nodes whose weight is a tensor of the file, as it is or behind a DequantizeLinear."""
    makers = {node.outputs[0]: node for node in model.nodes if node.outputs and node.op == "DequantizeLinear"}
    for node in model.nodes:
        op = OURS.get(node.op) or _STANDARD.get(node.op)
        if op is None or len(node.inputs) <= op.weight:
            continue
        others = dict.fromkeys(node.inputs[i] for i in op.others if i < len(node.inputs))  # plus may be minus
        source, scale, zero = (_input(node, i) for i in (op.weight, op.scale, op.zero))
        if source in makers:
            source, scale, zero = (_input(makers[source], i) for i in range(3))
            others |= dict.fromkeys((scale, zero))
        weight = model.tensors.get(source)
        if weight is not None:
            tensors = (weight, *(model.tensors[name] for name in others if name in model.tensors))
            yield Layer(node, op, weight, tensors, model.tensors.get(scale), model.tensors.get(zero))


def _input(node: Node, index: int | None) -> str:
    return node.inputs[index] if index is not None and index < len(node.inputs) else ""


def layer_weights(layer: Layer, model: Model, said: Mapping[str, Any]) -> LayerWeights | None:
    """The layer's integers and scales; None where its values lie in another file or have no plain type.

    said: what the metadata says about it. Raises ModelFileError where sizes contradict one another.
    """
    try:
        found = _ternary(layer, model) if layer.op.kind == "ternary" else _standard(layer)
    except (ValueError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise ModelFileError(f"node {layer.node.name!r}: its weights make no sense ({error})") from error
    return None if found is None else _with_facts(found, said)


def _with_facts(found: LayerWeights, said: Mapping[str, Any]) -> LayerWeights:
    method, pair = said.get("method"), (said.get("wp"), said.get("wn"))
    known = all(isinstance(v, int | float) and abs(v) < 1e300 for v in pair)
    trained = (float(pair[0] or 0), float(pair[1] or 0)) if known and pair != (None, None) else None
    return replace(found, method=method if isinstance(method, str) and method else None, trained=trained)


def _ternary(layer: Layer, model: Model) -> LayerWeights | None:
    """A layer of tritkit's own operations."""
    node, packed = layer.node, layer.weight.values
    if packed is None or not packed.size:
        return None
    shape = node.ints.get("w_shape", layer.weight.shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ModelFileError(f"node {node.name!r}: weights cannot have the shape {list(shape)}")
    rows, row = shape[0], prod(shape[1:])
    if packed.dtype != np.uint8 or packed.shape != (rows, -(-row // 4)):
        raise ModelFileError(f"node {node.name!r}: weights {list(packed.shape)} do not hold the shape {list(shape)}")
    codes = np.array([0, 1, 0, -1], np.int8)[_pairs(packed, row)].reshape(shape)
    size = (node.ints.get("group_size") or (None,))[0]
    plus, minus = _sides(layer, model, shape, size)
    return LayerWeights(node.name, node.op, "ternary", codes, _scale(layer, rows), plus, minus, size)


def _sides(layer: Layer, model: Model, shape: tuple[int, ...], size: int | None) -> tuple[Array, Array]:
    given = [_needed(model, layer.node, i) for i in ((4,) if layer.op is _TERNARY else (4, 5))]
    if layer.op is _TERNARY:
        if given[0].shape != (shape[0], 4):
            raise ModelFileError(f"node {layer.node.name!r}: a codebook of {list(given[0].shape)}, not [{shape[0]}, 4]")
        return given[0][:, 1].astype(np.int16), -given[0][:, 3].astype(np.int16)
    if size is None or not 1 <= size <= shape[1]:
        raise ModelFileError(f"node {layer.node.name!r}: group_size is {size}; allowed: 1 to {shape[1]}")
    wanted = (shape[0], -(-shape[1] // size), *shape[2:])
    if any(side.shape != wanted for side in given):
        raise ModelFileError(f"node {layer.node.name!r}: scales of its groups are not {list(wanted)}")
    return given[0].astype(np.int16), given[1].astype(np.int16)


def _needed(model: Model, node: Node, index: int) -> Array:
    tensor = model.tensors.get(node.inputs[index]) if index < len(node.inputs) else None
    values = None if tensor is None else tensor.values
    if values is None or values.dtype.kind not in "iu":
        raise ModelFileError(f"node {node.name!r}: what its codes stand for is not in the file")
    return values


def _scale(layer: Layer, rows: int) -> NDArray[np.float32]:
    """float32 [1] or [O]; ones where the file has none that fits."""
    values = None if layer.scale is None else layer.scale.values
    if values is None or values.dtype.kind != "f" or values.size not in (1, rows):
        return _ONE
    return values.reshape(-1).astype(np.float32)


def _standard(layer: Layer) -> LayerWeights | None:
    """A layer of a standard operation: int8 or float values, ternary ones among them recognised."""
    values = layer.weight.values
    if values is None or values.ndim < 2 or not values.size or values.dtype.itemsize > 4:
        return None
    if layer.op.rows == 1:
        if values.ndim != 2:
            return None
        values = values if layer.node.ints.get("transB", (0,))[0] else values.T
    dtype = np.float32 if values.dtype.kind == "f" else np.int16 if values.dtype.itemsize == 1 else np.int32
    plain: Array = np.ascontiguousarray(values, dtype)
    zero = None if layer.zero is None else layer.zero.values
    if zero is not None and zero.dtype.kind in "iu" and dtype != np.float32 and zero.size in (1, len(plain)):
        offset: Array = zero.astype(dtype).reshape(-1, *[1] * (plain.ndim - 1))
        plain = plain - offset
    return recognised(layer.node.name, layer.node.op, plain, _scale(layer, len(plain)))


def _pairs(packed: Array, row: int) -> NDArray[np.uint8]:
    """uint8 [O, ⌈K/4⌉] to codes 0..3 [O, K], the first in the lowest bits."""
    pairs = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return pairs.reshape(len(packed), -1)[:, :row].astype(np.uint8)
