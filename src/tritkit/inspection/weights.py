"""The weights of one layer as integers and scales, wherever they came from; and how ternary ones are recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerWeights", "recognised"]

Array = NDArray[Any]

_FEWEST, _FEWEST_A_ROW = 8, 4  # weights of a tensor, of a channel, below which two values say nothing


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The weights of a layer with O outputs, [O, ...].

    kind: "ternary", "int8" or "float".
    values: ternary: int8 codes −1, 0, 1; int8: the integers; float: float32.
    scale: float32, [1] or [O]; all of `values`, or of `plus` and `minus`, times it are the weights.
    plus, minus: ternary only: code +1 means plus · scale, code −1 means −minus · scale; [1], [O], or
        [O, ceil(I / N), ...] for groups of N input channels. int8 in files of tritkit, float32 elsewhere.
    group_size: N, or None.  method: the name of the method that made them, where that is known.
    trained: (Wp, Wn) as trained, before batch norm was folded in, where the file says them.
    """

    name: str
    op: str
    kind: str
    values: Array
    scale: NDArray[np.float32]
    plus: Array | None = None
    minus: Array | None = None
    group_size: int | None = None
    method: str | None = None
    trained: tuple[float, float] | None = None

    @property
    def density(self) -> float:
        """Share of the weights that are not zero, 0..1."""
        return int(np.count_nonzero(self.values)) / max(self.values.size, 1)

    def rows(self) -> Array:
        """`values` as [O, K]."""
        return self.values.reshape(len(self.values), -1)

    def sides(self) -> tuple[Array, Array]:
        """`plus` and `minus` of each weight, in a form that broadcasts against `values`; without `scale`."""
        return self._spread(self.plus), self._spread(self.minus)

    def dequantized(self) -> NDArray[np.float32]:
        """The weights, float32 [O, ...]."""
        each = self.scale.reshape(-1, *[1] * (self.values.ndim - 1))
        if self.plus is None:
            return np.asarray(self.values * each, np.float32)
        plus, minus = self.sides()
        integers = np.where(self.values > 0, plus, np.where(self.values < 0, -minus.astype(np.float32), 0))
        return np.asarray(integers * each, np.float32)

    def _spread(self, side: Array | None) -> Array:
        if side is None:
            return np.ones(1, np.float32)
        if self.group_size is None:
            return side.reshape(-1, *[1] * (self.values.ndim - 1))
        return np.repeat(side, self.group_size, axis=1)[:, : self.values.shape[1]]


def recognised(name: str, op: str, values: Array, scale: NDArray[np.float32]) -> LayerWeights:
    """The layer with weights `values` [O, ...] times `scale`: ternary if the tensor, or each of its channels, holds at
    most two values besides zero, and both a zero or two signs are there.
    """
    kind = "int8" if values.dtype.kind in "iu" else "float"
    plain = LayerWeights(name, op, kind, values, scale)
    if values.ndim < 2 or values.size < _FEWEST:
        return plain
    rows = values.reshape(len(values), -1)
    for table in (rows.reshape(1, -1), rows):
        if table.shape[1] < _FEWEST_A_ROW:
            continue
        found = _two_values(table)
        if found is not None:
            codes, plus, minus = found
            return LayerWeights(name, op, "ternary", codes.reshape(values.shape), scale, plus, minus)
    return plain


def _two_values(rows: Array) -> tuple[NDArray[np.int8], Array, Array] | None:
    """Codes, plus [R] and minus [R] of rows that hold two values besides zero; None if one holds more, or if no row
    has a zero or two values.
    """
    used = rows != 0
    ends = np.finfo(np.float32) if rows.dtype.kind == "f" else np.iinfo(np.int64)
    wide = rows.astype(np.float32 if rows.dtype.kind == "f" else np.int64)
    high = np.where(used, wide, ends.min).max(axis=1, keepdims=True)
    low = np.where(used, wide, ends.max).min(axis=1, keepdims=True)
    if not (~used | (wide == high) | (wide == low)).all() or not np.isfinite(wide).all():
        return None
    none, one = ~used.any(axis=1, keepdims=True), high == low
    if (one & used.all(axis=1, keepdims=True)).all():
        return None
    codes = np.where(used, np.where((wide == high) & ~(one & (high < 0)), 1, -1), 0).astype(np.int8)
    plus = np.where(none, 1, np.where(one, np.abs(high), high))[:, 0]
    minus = np.where(none, 1, np.where(one, np.abs(low), -low))[:, 0]
    dtype = np.float32 if rows.dtype.kind == "f" else np.int16
    return codes, plus.astype(dtype), minus.astype(dtype)
