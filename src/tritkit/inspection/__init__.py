"""Facts about a model file, as plain dicts, read from its bytes alone: no torch, no onnx, no C library.

    facts = inspect_file("net.onnx")
    facts["layers"][0] == {"name": "conv1", "op": "QLinearConv", "kind": "int8", "bits": 8, …}

The file may come from a stranger: every length is checked before use and nothing in it is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritkit.errors import ModelFileError, UserError
from tritkit.inspection._layers import onnx_facts
from tritkit.inspection._safetensors import safetensors_facts

__all__ = ["inspect_file"]

_LIMIT = 1 << 31  # bytes: protobuf's own limit, and more than any file of ours


def inspect_file(path: str | Path) -> dict[str, Any]:
    """What an ONNX or safetensors file holds.

    Keys always present: `file`, `format` ("tritkit-onnx", "onnx" or "safetensors"), `bytes`, `layers`, `tensors`,
    `totals`, `metadata`. Raises UserError for a missing file, ModelFileError for a damaged one or another kind.
    """
    path = Path(path)
    data = _read(path)
    try:
        facts = safetensors_facts(data) if _is_safetensors(data) else onnx_facts(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    return {"file": str(path), **facts}


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a model file (.onnx or .safetensors)")
    if not path.is_file():
        raise UserError(f"no file {path}; give a model file (.onnx or .safetensors)")
    size = path.stat().st_size
    if size > _LIMIT:
        raise ModelFileError(f"{path} has {size:,} bytes; model files of up to {_LIMIT:,} bytes are read")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _is_safetensors(data: bytes) -> bool:
    """Eight bytes of length, then a JSON object: an ONNX file has no '{' there, for its first field is a version."""
    return data[8:9] == b"{"
