"""Weights in integers: ternary or int8 codes, with batch norm and bias folded into w_scale and bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritkit.deploy.graph import BIAS_LIMIT, K_LIMIT, WEIGHT_LIMIT, Int8Weight, TernaryWeight, Weight
from tritkit.errors import UnsupportedError, UserError
from tritkit.ternary import Ternary

__all__ = [
    "Affine",
    "Folded",
    "fold_float",
    "fold_integer",
    "int8_values",
    "int8_weight",
    "ternary_values",
    "ternary_weight",
]

Float64 = NDArray[np.float64]

_CLIPS = np.linspace(1.0, 0.62, 20)  # shares of max|w| tried for the int8 range
_SMALLEST_FACTOR = 2.0**-40  # of an output's unit: sums of int32 stay below 2^-9 codes there


@dataclass(frozen=True, eq=False)
class Affine:
    """y = factor · x + shift a channel: what batch norms and biases do; float64 [O]."""

    factor: Float64
    shift: Float64

    @classmethod
    def bias(cls, outputs: int, bias: Tensor | None) -> Affine:
        """The bias of a layer, or none."""
        shift = np.zeros(outputs) if bias is None else _float64(bias)
        return cls(np.ones(outputs), shift)

    def then_norm(self, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Affine:
        """This followed by a batch norm in evaluation mode."""
        factor = 1 / np.sqrt(_float64(var) + eps)
        if weight is not None:
            factor = factor * _float64(weight)
        shift = (self.shift - _float64(mean)) * factor
        if bias is not None:
            shift = shift + _float64(bias)
        return Affine(self.factor * factor, shift)


@dataclass(frozen=True, eq=False)
class Folded:
    """A layer in integers: weight = w_scale · integers, and the bias in units of x_scale · w_scale."""

    weight: Weight
    w_scale: NDArray[np.float32]
    bias: NDArray[np.int32]


def _float64(x: Tensor) -> Float64:
    values: Float64 = x.detach().cpu().to(torch.float64).numpy()
    return values


def ternary_weight(ternary: Ternary, method: str) -> tuple[TernaryWeight, Float64]:
    """Codes and codebook, and the unit of each output channel [O]."""
    book = ternary.codebook(WEIGHT_LIMIT)
    codes, p, n = (t.detach().cpu().numpy().copy() for t in (book.codes, book.p, book.n))
    size = None if ternary.group_size is None else min(ternary.group_size, codes.shape[1])
    if size is not None and all(_one_a_channel(side) for side in (p, n)):
        p, n = (side.reshape(len(codes), -1)[:, 0].copy() for side in (p, n))
        size = None
    return TernaryWeight(codes, p, n, method, size), _float64(book.ws).copy()


def _one_a_channel(side: NDArray[np.int8]) -> bool:
    rows = side.reshape(len(side), -1)
    return bool((rows == rows[:, :1]).all())


def ternary_values(weight: Tensor) -> Ternary | None:
    """The weight [O, ...] as a ternary one if each channel holds at most one value above 0 and one below."""
    rows = weight.detach().cpu().float().reshape(weight.shape[0], -1)
    high, low = rows.amax(1, keepdim=True).clamp(min=0), rows.amin(1, keepdim=True).clamp(max=0)
    if not bool(((rows == high) | (rows == low) | (rows == 0)).all()):
        return None
    codes = torch.sign(rows).to(torch.int8).reshape(weight.shape)
    scale = (-1, *[1] * (weight.ndim - 1))
    return Ternary(codes, high.reshape(scale), (-low).reshape(scale))


def int8_weight(weight: Tensor) -> tuple[Int8Weight, Float64]:
    """Integers within ±64 and the unit of each output channel [O], clipped where that lowers the squared error."""
    values = _float64(weight)
    rows = values.reshape(len(values), -1)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    largest = np.where(largest == 0, largest.max() or 1.0, largest)
    best, error = np.zeros_like(largest), np.full_like(largest, np.inf)
    for clip in _CLIPS:
        unit = largest * clip / WEIGHT_LIMIT
        found = np.square(_integers(rows, unit) * unit - rows).sum(axis=1, keepdims=True)
        best, error = np.where(found < error, unit, best), np.minimum(found, error)
    return Int8Weight(_integers(rows, best).astype(np.int8).reshape(values.shape)), best[:, 0]


def int8_values(weight: Tensor) -> Tensor:
    """The values of `int8_weight`, unit · integer, in the shape, dtype and place of `weight` [O, ...]; no gradient."""
    integers, unit = int8_weight(weight)
    values = integers.values * _column(unit, weight.ndim)
    return torch.from_numpy(values).to(weight)


def _integers(rows: Float64, unit: Float64) -> Float64:
    return np.clip(np.rint(rows / unit), -WEIGHT_LIMIT, WEIGHT_LIMIT)


def fold_integer(
    name: str, weight: Weight, unit: Float64, affine: Affine, x_scale: float, y_scale: float | None
) -> Folded:
    """The layer affine(unit · integers · x) with its factors in w_scale and its shifts in the int32 bias.

    A negative factor flips the signs of its channel. Where a factor is so small that the bias would pass 2^30, the
    channel's unit grows and its integers shrink; at factor 0 they vanish.
    """
    _check_affine(name, affine)
    k = prod(weight.shape[1:])
    if k > K_LIMIT:
        raise UnsupportedError(f"layer {name!r} has {k} weights an output; int32 sums are exact up to {K_LIMIT}")
    wanted = unit * np.abs(affine.factor)
    floor = np.maximum(np.abs(affine.shift) / (x_scale * BIAS_LIMIT) * 1.001, _smallest(wanted, x_scale, y_scale))
    w_scale = np.maximum(wanted, floor).astype(np.float32)
    shrink = np.where(wanted < floor, wanted / floor, 1.0)
    bias = np.rint(affine.shift / (np.float64(x_scale) * w_scale))
    folded = _shrunk(_flipped(weight, affine.factor < 0), shrink)
    return Folded(folded, w_scale, np.clip(bias, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32))


def _smallest(wanted: Float64, x_scale: float, y_scale: float | None) -> float:
    """The least unit of a channel: far below what matters in the result, far above what float32 rounds badly."""
    reference = (y_scale / x_scale) if y_scale is not None else float(wanted.max())
    return max(reference * _SMALLEST_FACTOR, 2.0**-100)


def _check_affine(name: str, affine: Affine) -> None:
    if not (np.isfinite(affine.factor).all() and np.isfinite(affine.shift).all()):
        raise UserError(f"layer {name!r}: its bias or batch norm has NaN or infinite values")


def _column(values: NDArray[Any], ndim: int) -> NDArray[Any]:
    return values.reshape(-1, *[1] * (ndim - 1))


def _flipped(weight: Weight, negative: NDArray[np.bool_]) -> Weight:
    sign = _column(np.where(negative, -1, 1).astype(np.int8), len(weight.shape))
    if isinstance(weight, Int8Weight):
        return replace(weight, values=(weight.values * sign).astype(np.int8))
    swap = _column(negative, weight.p.ndim)
    p, n = np.where(swap, weight.n, weight.p), np.where(swap, weight.p, weight.n)
    return replace(weight, codes=(weight.codes * sign).astype(np.int8), p=p, n=n)


def _shrunk(weight: Weight, share: Float64) -> Weight:
    """Every integer times its channel's share in [0, 1], rounded."""
    if (share == 1).all():
        return weight
    if isinstance(weight, Int8Weight):
        return replace(weight, values=np.rint(weight.values * _column(share, weight.values.ndim)).astype(np.int8))
    p, n = (np.rint(side * _column(share, side.ndim)).astype(np.int8) for side in (weight.p, weight.n))
    alive = np.where(weight.codes > 0, weight.expand(p), weight.expand(n)) > 0
    codes = np.where(alive, weight.codes, 0).astype(np.int8)
    return replace(weight, codes=codes, p=np.maximum(p, 1), n=np.maximum(n, 1))


def fold_float(name: str, weight: Tensor, affine: Affine) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias in float32 with the affine steps folded in."""
    _check_affine(name, affine)
    folded = _float64(weight) * affine.factor.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), affine.shift.astype(np.float32)


def layer_facts(name: str, op: str, weight: Weight | NDArray[np.float32], scale: Sequence[float]) -> dict[str, object]:
    """A row of the file's list of layers; scale: (Wp, Wn), means over the channels, before batch norm."""
    kind = weight.kind if isinstance(weight, (TernaryWeight, Int8Weight)) else "float32"
    values = weight if isinstance(weight, np.ndarray) else weight.integers()
    row: dict[str, object] = {"name": name, "op": op, "kind": kind}
    row["method"] = "" if isinstance(weight, np.ndarray) else weight.method
    row["shape"] = list(values.shape)
    row["group_size"] = weight.group_size if isinstance(weight, TernaryWeight) else None
    row["density"] = round(int(np.count_nonzero(values)) / values.size, 6)
    row["wp"], row["wn"] = (float(f"{s:.6g}") for s in scale) if kind == "ternary" else (None, None)
    return row
