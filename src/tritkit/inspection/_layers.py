"""The weighted layers of an ONNX file: what its tensors hold, beside what its metadata says about the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError
from tritkit.inspection._wire import Model, Node, Tensor, read_model

FORMAT = "1"


class _Op(NamedTuple):
    kind: str
    bits: int
    weight: int  # which input
    others: tuple[int, ...]  # codebook, scales, bias
    scales: int | None  # which input, where the weights are integers


_OPS = {
    "TernaryQConv": _Op("ternary", 2, 3, (4, 5, 6), 5),
    "TernaryQGemm": _Op("ternary", 2, 3, (4, 5, 6), 5),
    "TernaryGemm": _Op("ternary", 2, 3, (4, 5, 6), 5),
    "TernaryGroupQConv": _Op("ternary", 2, 3, (4, 5, 6, 7), 6),
    "TernaryGroupQGemm": _Op("ternary", 2, 3, (4, 5, 6, 7), 6),
    "TernaryGroupGemm": _Op("ternary", 2, 3, (4, 5, 6, 7), 6),
    "QLinearConv": _Op("int8", 8, 3, (4, 5, 8), 4),
    "Int8QGemm": _Op("int8", 8, 3, (4, 5), 4),
    "Int8Gemm": _Op("int8", 8, 3, (4, 5), 4),
    "Conv": _Op("float32", 32, 1, (2,), None),
    "Gemm": _Op("float32", 32, 1, (2,), None),
}


def onnx_facts(data: bytes) -> dict[str, Any]:
    """See `inspect_file`."""
    model = read_model(data)
    said = _json(model, "tritkit.layers", list)
    version = model.metadata.get("tritkit.format")
    if version not in (None, FORMAT):
        raise ModelFileError(f"format version {version!r}; this tritkit reads version {FORMAT}: install a newer one")
    by_name = {row["name"]: row for row in said if isinstance(row, dict) and isinstance(row.get("name"), str)}
    layers = [_layer(node, model, by_name) for node in model.nodes if _weight(node, model) is not None]
    if not layers:  # a flavour for other tools has no node a layer; what the file says of itself remains
        layers = [_said(row) for row in by_name.values()]
    ours = version is not None
    return {
        "format": "tritkit-onnx" if ours else "onnx",
        "bytes": len(data),
        "producer": model.producer,
        "opsets": model.opsets,
        "input": _json(model, "tritkit.input", dict),
        "nodes": len(model.nodes),
        "layers": layers,
        "tensors": [] if ours else [_tensor(tensor) for tensor in model.tensors.values()],
        "totals": _totals(layers, model, len(data)),
        "metadata": {k: v for k, v in model.metadata.items() if k not in ("tritkit.layers", "tritkit.input")},
    }


def _json(model: Model, key: str, kind: type[Any]) -> Any:
    """Metadata written as JSON; empty where there is none."""
    if key not in model.metadata:
        return kind()
    try:
        value = json.loads(model.metadata[key])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the file is damaged: its metadata {key} is no JSON") from error
    if not isinstance(value, kind):
        raise ModelFileError(f"the file is damaged: its metadata {key} is no {kind.__name__}")
    return value


def _weight(node: Node, model: Model) -> Tensor | None:
    op = _OPS.get(node.op)
    if op is None or len(node.inputs) <= op.weight:
        return None
    return model.tensors.get(node.inputs[op.weight])


def _layer(node: Node, model: Model, by_name: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    op, weight, said = _OPS[node.op], _weight(node, model), by_name.get(node.name, {})
    if weight is None:  # the caller has looked
        raise ModelFileError(f"node {node.name!r} has no weight")
    shape = node.ints.get("w_shape", weight.shape) if op.kind == "ternary" else weight.shape
    size = int(np.prod(shape, dtype=object)) if shape else 1
    names = dict.fromkeys(node.inputs[i] for i in op.others if i < len(node.inputs))  # plus may be minus
    used = [weight, *(tensor for name in names if (tensor := model.tensors.get(name)))]
    return {
        "name": node.name,
        "op": node.op,
        "kind": op.kind,
        "bits": op.bits,
        "method": _text(said.get("method")),
        "shape": list(shape),
        "group_size": (node.ints.get("group_size") or (None,))[0],
        "weights": size,
        "density": _density(node, weight, op.kind, shape),
        "wp": _number(said.get("wp")),
        "wn": _number(said.get("wn")),
        "bytes": sum(len(tensor.raw) for tensor in used),
    }


def _density(node: Node, weight: Tensor, kind: str, shape: tuple[int, ...]) -> float | None:
    """Share of weights that are not zero, counted."""
    values = weight.values
    if values is None or not values.size:
        return None
    if kind != "ternary":
        return float(np.count_nonzero(values)) / values.size
    if len(shape) < 2 or min(shape) < 1:
        raise ModelFileError(f"node {node.name!r}: weights cannot have the shape {list(shape)}")
    rows, row = shape[0], int(np.prod(shape[1:], dtype=object))
    if values.dtype != np.uint8 or values.shape != (rows, -(-row // 4)):
        raise ModelFileError(f"node {node.name!r}: weights {list(values.shape)} do not hold the shape {list(shape)}")
    return float(np.count_nonzero(_codes(values, row))) / (rows * row)


def _codes(packed: NDArray[Any], row: int) -> NDArray[np.uint8]:
    """uint8 [O, ⌈K/4⌉] to codes 0..3 [O, K], the first in the lowest bits."""
    codes = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return codes.reshape(len(packed), -1)[:, :row].astype(np.uint8)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    shape = [n for n in row.get("shape", []) if isinstance(n, int)] if isinstance(row.get("shape"), list) else []
    kind = str(row.get("kind", ""))
    return {
        "name": row["name"],
        "op": str(row.get("op", "")),
        "kind": kind,
        "bits": {"ternary": 2, "int8": 8, "float32": 32}.get(kind),
        "method": _text(row.get("method")),
        "shape": shape,
        "group_size": size if isinstance(size := row.get("group_size"), int) else None,
        "weights": int(np.prod(shape, dtype=object)) if shape else 0,
        "density": _number(row.get("density")),
        "wp": _number(row.get("wp")),
        "wn": _number(row.get("wn")),
        "bytes": None,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | list[float] | None:
    """A finite number or a list of them; anything else is not shown (and would not be JSON)."""
    if isinstance(value, list) and value and all(_is_number(v) for v in value):
        return [float(v) for v in value]
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300  # false for NaN and infinities


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "values": tensor.count,
        "bytes": len(tensor.raw),
    }


def _totals(layers: list[dict[str, Any]], model: Model, size: int) -> dict[str, Any]:
    """Float bytes count 4 a weight and 4 a bias an output channel, as the float network would store them."""
    weights = sum(row["weights"] for row in layers)
    outputs = sum(row["shape"][0] for row in layers if row["shape"])
    ternary = [row for row in layers if row["kind"] == "ternary" and row["density"] is not None]
    counted = sum(row["weights"] for row in ternary)
    nonzero = sum(row["weights"] * row["density"] for row in ternary)
    if not layers:
        weights = sum(t.count for t in model.tensors.values() if t.dtype == "float32")
    float_bytes = 4 * (weights + outputs)
    return {
        "weights": weights,
        "ternary_weights": counted,
        "ternary_density": nonzero / counted if counted else None,
        "float_bytes": float_bytes,
        "ratio": float_bytes / size,
    }
