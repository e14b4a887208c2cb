"""Dynamic fixed point: 8-bit activations whose scale is a power of two, as the FGQ paper's hardware has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tritkit.observers import LEVELS, Observer, Percentile

__all__ = ["PowerOfTwo"]

_SMALLEST = 2.0**-30


@dataclass(frozen=True)
class PowerOfTwo(Observer):
    """The smallest range with a power-of-two scale that holds what `inner` asks for (default: `Percentile(99.99)`).

        scale = 2^(ceil(log2(max x)) − 8), zero point 0         where no value is below zero
        scale = 2^(ceil(log2(max |x|)) − 7), zero point 128     else

    with max x the end that `inner` gives; batches are joined by the larger range.
    """

    inner: Observer = Percentile()  # noqa: RUF009 - frozen

    def batch_range(self, x: Tensor) -> tuple[float, float]:
        low, high = self.inner.batch_range(x)
        if float(torch.min(x)) >= 0:
            return 0.0, LEVELS * _power(high, 8)
        unit = _power(max(-low, high), 7)
        return -128 * unit, 127 * unit

    def join(self, old: float, new: float, seen: int, pick: str) -> float:
        return min(old, new) if pick == "low" else max(old, new)


def _power(top: float, bits: int) -> float:
    """The power of two that `bits` bits above it reach `top`."""
    return float(2.0 ** (math.ceil(math.log2(max(top, _SMALLEST))) - bits))
