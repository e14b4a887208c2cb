"""Facts about a model file, as plain dicts, and its weights as integers and scales.

    facts = inspect_file("net.onnx")
    facts["layers"][0] == {"name": "conv1", "op": "QLinearConv", "kind": "int8", "bits": 8, …}
    codes = {layer.name: layer.values for layer in read_weights("net.onnx")}

ONNX files, of tritkit or of other tools, and safetensors are read from their bytes alone: no torch, no onnx, no C
library. A training run's final.safetensors and checkpoint.pt need torch, which makes codes of their latent weights.

The file may come from a stranger: every length is checked before use and nothing in it is executed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tritkit.errors import ModelFileError, UserError
from tritkit.inspection._layers import onnx_facts, onnx_weights, ternary_tensors, weight_row
from tritkit.inspection._safetensors import is_of_a_run, safetensors_facts, safetensors_weights
from tritkit.inspection.weights import LayerWeights

__all__ = ["LayerWeights", "inspect_file", "read_weights", "ternary_tensors"]

_LIMIT = 1 << 31  # bytes: protobuf's own limit, and more than any file of ours


def inspect_file(path: str | Path) -> dict[str, Any]:
    """What a model file holds: ONNX, safetensors, or a run's checkpoint.pt.

    Keys always present: `file`, `format` ("tritkit-onnx", "onnx", "safetensors" or "checkpoint"), `bytes`, `layers`,
    `tensors`, `totals`, `metadata`. Raises UserError for a missing file, ModelFileError for a damaged one or
    another kind.
    """
    path = Path(path)
    data = _read(path)
    try:
        return {"file": str(path), **_facts(path, data)}
    except ModelFileError as error:
        raise _named(path, error) from error


def read_weights(path: str | Path) -> list[LayerWeights]:
    """The weights of every layer whose values the file holds, in its order. Errors as `inspect_file`."""
    path = Path(path)
    data = _read(path)
    try:
        if _is_zip(data):
            from tritkit.inspection._training import checkpoint_weights

            return checkpoint_weights(path)[0]
        if _is_safetensors(data):
            return _safetensors(path, data)
        return onnx_weights(data)
    except ModelFileError as error:
        raise _named(path, error) from error


def _facts(path: Path, data: bytes) -> dict[str, Any]:
    if _is_zip(data):
        from tritkit.inspection._training import checkpoint_weights

        weights, facts = checkpoint_weights(path)
        tensors, size = facts.pop("tensors"), len(data)
        metadata = {key: str(value) for key, value in facts.items()}
        made = {"format": "checkpoint", "bytes": size, "tensors": tensors, "metadata": metadata}
        return {**made, **_rows(weights, size, sum(row["values"] for row in tensors))}
    if not _is_safetensors(data):
        return onnx_facts(data)
    facts = safetensors_facts(data)
    layers = _safetensors(path, data)
    if any(layer.kind == "ternary" for layer in layers):
        facts |= _rows(layers, len(data), facts["totals"]["weights"])
    return facts


def _safetensors(path: Path, data: bytes) -> list[LayerWeights]:
    if is_of_a_run(data) and find_spec("torch") is not None:
        from tritkit.inspection._training import trained_weights

        return trained_weights(path)
    return safetensors_weights(data)


def _rows(layers: list[LayerWeights], size: int, values: int) -> dict[str, Any]:
    """`layers` and `totals` of a file for training, which holds more than weights."""
    ternary = [layer for layer in layers if layer.kind == "ternary"]
    counted = sum(layer.values.size for layer in ternary)
    nonzero = sum(layer.values.size * layer.density for layer in ternary)
    totals = {
        "weights": values,
        "ternary_weights": counted,
        "ternary_density": nonzero / counted if counted else None,
        "float_bytes": 4 * values,
        "ratio": 4 * values / size,
    }
    return {"layers": [weight_row(layer) for layer in layers], "totals": totals}


def _named(path: Path, error: ModelFileError) -> ModelFileError:
    return error if str(error).startswith(str(path)) else ModelFileError(f"{path}: {error}")


def _read(path: Path) -> bytes:
    kinds = "an .onnx or .safetensors file, or a run's checkpoint.pt"
    if path.is_dir():
        raise UserError(f"{path} is a folder; give {kinds}")
    if not path.is_file():
        raise UserError(f"no file {path}; give {kinds}")
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


def _is_zip(data: bytes) -> bool:
    return data[:4] == b"PK\x03\x04"
