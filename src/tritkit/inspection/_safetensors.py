"""A safetensors file: its table of contents, and the layers among its tensors whose weights are ternary."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tritkit.errors import ModelFileError
from tritkit.inspection.weights import LayerWeights, recognised

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_NUMPY = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1"}


def safetensors_facts(data: bytes) -> dict[str, Any]:
    """See `inspect_file`."""
    header, body = _header(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ModelFileError("the file is damaged: its metadata is no table")
    tensors = [_row(name, entry, body) for name, entry in header.items()]
    weights = sum(row["values"] for row in tensors)
    size, float_bytes = len(data), 4 * weights
    return {
        "format": "safetensors",
        "bytes": size,
        "layers": [],
        "tensors": tensors,
        "totals": {"weights": weights, "float_bytes": float_bytes, "ratio": float_bytes / size},
        "metadata": {str(key): str(value) for key, value in metadata.items()},
    }


def safetensors_weights(data: bytes) -> list[LayerWeights]:
    """Tensors [O, ...] of two dimensions or more that hold numbers: ternary, int8 or float."""
    return list(_weights(data))


def is_of_a_run(data: bytes) -> bool:
    """Whether the metadata has a recipe, as a run's final.safetensors does."""
    metadata = _header(data)[0].get("__metadata__")
    return isinstance(metadata, dict) and "recipe" in metadata


def _weights(data: bytes) -> Iterator[LayerWeights]:
    header, body = _header(data)
    header.pop("__metadata__", None)
    start = len(data) - body
    for name, entry in header.items():
        row = _row(name, entry, body)
        dtype, shape = row["dtype"], row["shape"]
        if len(shape) < 2 or not row["values"] or dtype not in (*_NUMPY, "BF16"):
            continue
        first = start + int(entry["data_offsets"][0])
        raw = data[first : first + row["bytes"]]
        if dtype == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, _NUMPY[dtype])
        values = values.astype(np.float32 if dtype in ("F32", "F16", "BF16") else np.int16).reshape(shape)
        yield recognised(name, dtype, values, np.ones(1, np.float32))


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header, and the bytes that follow it."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise ModelFileError(f"the file is damaged: a header of {size:,} bytes announced, {len(data) - 8:,} remain")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the file is damaged: its header is no JSON ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise ModelFileError("the file is damaged: its header is no table")
    return header, len(data) - 8 - size


def _row(name: str, entry: Any, body: int) -> dict[str, Any]:
    try:
        dtype, shape, (start, end) = str(entry["dtype"]), [int(n) for n in entry["shape"]], entry["data_offsets"]
        whole = all(n >= 0 for n in shape) and 0 <= start <= end <= body
        bits = _BITS.get(dtype)
        if not whole or (bits and math.prod(shape) * bits != 8 * (end - start)):
            raise ModelFileError(f"tensor {name!r}: {dtype} {shape} does not fit its bytes {start}..{end} of {body}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"the file is damaged: the entry of tensor {name!r} is not whole") from error
    return {"name": name, "dtype": dtype, "shape": shape, "values": math.prod(shape), "bytes": end - start}
