"""The weighted layers of a model file with their integers, one layer decoded at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError, UserError
from tritkit.inspection._wire import Model, Node, Tensor, read_model

Codes = NDArray[np.int8]
_SIGNS = np.array([0, 1, 0, -1], np.int8)  # of the 2-bit codes 00, 01, 10 (never written), 11
_TERNARY, _TERNARY_GROUPS = "Ternary", "TernaryGroup"


@dataclass(frozen=True)
class TernaryLayer:
    """A ternary layer as its file has it: codes are decoded when asked for, [O, I, kh, kw] or [O, I].

    plus, minus: int64 multipliers, [O] or one for each group.
    """

    name: str
    shape: tuple[int, ...]
    packed: NDArray[np.uint8]
    plus: NDArray[np.int64]
    minus: NDArray[np.int64]
    group_size: int | None

    @property
    def symmetric(self) -> bool:
        return bool(np.array_equal(self.plus, self.minus))

    def codes(self) -> Codes:
        """int8 in {−1, 0, +1}, of the weight's shape."""
        fields = (self.packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
        row = prod(self.shape[1:])
        codes: Codes = _SIGNS[fields.reshape(len(self.packed), -1)[:, :row]].reshape(self.shape)
        return codes


def ternary_layers(path: Path) -> Iterator[TernaryLayer]:
    """The ternary layers of an ONNX file in its order. ModelFileError where one is not whole."""
    try:
        model = read_model(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    for node in model.nodes:
        if node.domain == "tritkit" and node.op.startswith(_TERNARY):
            yield _layer(node, model)


def _layer(node: Node, model: Model) -> TernaryLayer:
    shape = node.ints.get("w_shape", ())
    packed = _values(node, 3, model)
    row = prod(shape[1:])
    if len(shape) < 2 or min(shape) < 1 or packed.dtype != np.uint8 or packed.shape != (shape[0], -(-row // 4)):
        raise ModelFileError(f"node {node.name!r}: weights {list(packed.shape)} do not hold the shape {list(shape)}")
    if node.op.startswith(_TERNARY_GROUPS):
        plus, minus = _values(node, 4, model).astype(np.int64), _values(node, 5, model).astype(np.int64)
        size = (node.ints.get("group_size") or (None,))[0]
        return TernaryLayer(node.name, shape, packed, plus, minus, size)
    book = _values(node, 4, model).astype(np.int64)
    if book.shape != (shape[0], 4):
        raise ModelFileError(f"node {node.name!r}: the codebook has shape {list(book.shape)}, not [{shape[0]}, 4]")
    return TernaryLayer(node.name, shape, packed, book[:, 1], -book[:, 3], None)


def _values(node: Node, index: int, model: Model) -> NDArray[Any]:
    tensor: Tensor | None = model.tensors.get(node.inputs[index]) if index < len(node.inputs) else None
    values = None if tensor is None else tensor.values
    if values is None:
        raise ModelFileError(f"node {node.name!r}: its input {index} is no tensor of the file")
    return values
