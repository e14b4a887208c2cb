"""The table of contents of a safetensors file; the weights themselves are not looked at."""

from __future__ import annotations

import json
import math
from typing import Any

from tritkit.errors import ModelFileError

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip


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
