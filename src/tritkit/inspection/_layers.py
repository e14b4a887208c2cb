"""The weighted layers of an ONNX file: what its tensors hold, beside what its metadata says about the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError
from tritkit.inspection._onnx import OURS, Layer, find_layers, layer_weights
from tritkit.inspection._wire import Model, Tensor, read_model
from tritkit.inspection.weights import LayerWeights

FORMAT = "1"


def onnx_facts(data: bytes) -> dict[str, Any]:
    """See `inspect_file`."""
    model = _read(data)
    by_name = _said_of(model)
    found = [(layer, by_name.get(layer.node.name, {})) for layer in find_layers(model)]
    layers = [_row(layer, layer_weights(layer, model, said), said) for layer, said in found]
    if not layers:  # a flavour for other tools has no node a layer; what the file says of itself remains
        layers = [_said(row) for row in by_name.values()]
    ours = "tritkit.format" in model.metadata
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


def onnx_weights(data: bytes) -> list[LayerWeights]:
    """The weights of every layer whose values are in the file. Errors as `inspect_file`."""
    model = _read(data)
    by_name = _said_of(model)
    found = [layer_weights(layer, model, by_name.get(layer.node.name, {})) for layer in find_layers(model)]
    return [weights for weights in found if weights is not None]


def ternary_tensors(data: bytes) -> list[tuple[str, tuple[int, ...], int, NDArray[np.uint8]]]:
    """(layer, shape, offset in the file, bytes) of each tensor of 2-bit codes. Errors as `inspect_file`."""
    model, start = _read(data), np.frombuffer(data, np.uint8).ctypes.data
    found = []
    for layer in find_layers(model):
        if layer.op.kind == "ternary" and layer.weight.dtype == "uint8" and len(layer.weight.raw):
            raw = np.frombuffer(layer.weight.raw, np.uint8)
            at, shape = raw.ctypes.data - start, layer.node.ints.get("w_shape", ())
            if 0 <= at <= len(data) - raw.size and len(shape) > 1 and min(shape) > 0:
                found.append((layer.node.name, shape, at, raw))
    return found


def _read(data: bytes) -> Model:
    model = read_model(data)
    version = model.metadata.get("tritkit.format")
    if version not in (None, FORMAT):
        raise ModelFileError(f"format version {version!r}; this tritkit reads version {FORMAT}: install a newer one")
    return model


def _said_of(model: Model) -> dict[str, dict[str, Any]]:
    """What the metadata says about each layer, by name."""
    said = _json(model, "tritkit.layers", list)
    return {row["name"]: row for row in said if isinstance(row, dict) and isinstance(row.get("name"), str)}


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


def _row(layer: Layer, weights: LayerWeights | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's row. A ternary layer of another tool has the bits that its file spends on a weight, and its scales."""
    ours, node = layer.node.op in OURS, layer.node
    shape = layer.weight.shape if weights is None else weights.values.shape
    kind = layer.op.kind if weights is None or weights.kind == "float" else weights.kind
    foreign = weights is not None and kind == "ternary" and not ours
    pair = _scales(weights) if foreign and weights is not None else (_number(said.get("wp")), _number(said.get("wn")))
    return {
        "name": node.name,
        "op": node.op,
        "kind": kind,
        "bits": layer.op.bits if ours else 8 * layer.weight.itemsize,
        "method": _text(said.get("method")),
        "shape": list(shape),
        "group_size": (node.ints.get("group_size") or (None,))[0],
        "weights": int(np.prod(shape, dtype=object)) if shape else 1,
        "density": None if weights is None else weights.density,
        "wp": pair[0],
        "wn": pair[1],
        "bytes": sum(len(tensor.raw) for tensor in layer.tensors),
    }


def weight_row(weights: LayerWeights) -> dict[str, Any]:
    """The row of a layer of a training file: its bits are those that export spends on a weight."""
    plus, minus = _scales(weights) if weights.kind == "ternary" else (None, None)
    if weights.trained is not None:
        plus, minus = weights.trained
    return {
        "name": weights.name,
        "op": weights.op,
        "kind": {"float": "float32"}.get(weights.kind, weights.kind),
        "bits": {"ternary": 2, "int8": 8}.get(weights.kind, 32),
        "method": weights.method,
        "shape": list(weights.values.shape),
        "group_size": weights.group_size,
        "weights": weights.values.size,
        "density": weights.density,
        "wp": plus,
        "wn": minus,
        "bytes": None,
    }


def _scales(weights: LayerWeights) -> tuple[float | list[float] | None, float | list[float] | None]:
    """Wp and Wn: one number, or one an output channel."""
    sides = [side for side in (weights.plus, weights.minus) if side is not None]
    pair = [np.asarray(side * weights.scale, np.float64).reshape(-1) for side in sides]
    plus, minus = (_number(side.tolist() if len(side) > 1 else float(side[0])) for side in pair)
    return plus, minus


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
