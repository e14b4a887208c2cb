"""The positions of the weights that are not zero as gaps (the paper's section 2, figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Entries:
    """The stored weights of a layer in order: the i-th is `index[i]`, and `gaps[i]` zeros stand before it.

    Both uint8 [entries]. An index of 0 is a filler: a stored zero, where more zeros follow each other than a gap says.
    """

    gaps: UInt8
    index: UInt8

    def __len__(self) -> int:
        return len(self.gaps)

    @property
    def fillers(self) -> int:
        """How many entries are fillers."""
        return int(np.count_nonzero(self.index == 0))


def to_entries(flat: UInt8, gap_bits: int) -> Entries:
    """The entries of `flat` [n], with gaps of `gap_bits` (1..8) bits: at most 2^gap_bits − 1 zeros before an entry."""
    widest = 2**gap_bits
    positions = np.flatnonzero(flat)
    steps = np.diff(positions, prepend=-1)  # at least 1
    fillers = (steps - 1) // widest
    ends = np.cumsum(fillers + 1) - 1
    total = int(ends[-1]) + 1 if len(ends) else 0
    gaps, index = np.full(total, widest - 1, np.uint8), np.zeros(total, np.uint8)
    gaps[ends] = steps - 1 - fillers * widest
    index[ends] = flat[positions]
    return Entries(gaps, index)


def from_entries(entries: Entries, size: int) -> UInt8:
    """The `size` values that `to_entries` was given. ModelFileError if an entry lies behind them."""
    if len(entries.gaps) != len(entries.index):
        raise ModelFileError(f"{len(entries.gaps)} gaps do not fit {len(entries.index)} indices")
    positions = np.cumsum(entries.gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ModelFileError(f"a weight lies at {positions[-1]}, but the layer has {size}")
    flat = np.zeros(size, np.uint8)
    flat[positions] = entries.index
    return flat
