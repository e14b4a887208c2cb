"""Ternary weights as rows: codes [O, K], a group for each of the K columns, and the scales [O, 2·G] of the groups.

Column order is (ky, kx, input channel), or (input channel, ky, kx) for groups of whole kernels, so that the columns of
a group stand together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from tritkit.methods import FGQ
from tritkit.ternary import Ternary

__all__ = ["Layout", "Rows", "rows_of"]


@dataclass(frozen=True, eq=False)
class Layout:
    """How a layer's weight of `shape` falls into groups under `method`.

    bounds: the first column of each group and, last, K, in the order of this layout.
    order: int64 [K]: column k here is column order[k] of (ky, kx, input channel).
    """

    method: FGQ
    shape: torch.Size
    bounds: tuple[int, ...]
    order: Tensor

    @classmethod
    def of(cls, method: FGQ, shape: torch.Size) -> Layout:
        channels, area = shape[1], prod(shape[2:])
        size = min(method.group_size, channels)
        if method.group == "weights":
            bounds = [p * channels + c for p in range(area) for c in range(0, channels, size)]
            order = torch.arange(area * channels)
        else:
            bounds = [c * area for c in range(0, channels, size)]
            order = torch.arange(area * channels).reshape(area, channels).T.flatten()
        return cls(method, shape, (*bounds, area * channels), order)

    @property
    def groups(self) -> int:
        return len(self.bounds) - 1

    def group_of(self) -> Tensor:
        """int64 [K]: the group of each column."""
        sizes = torch.tensor(self.bounds).diff()
        return torch.arange(self.groups).repeat_interleave(sizes)

    def scales(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The method's exact scales (Wp, Wn) [O] for the weights [O, n] of one group."""
        made = FGQ(weights.shape[1], scales=self.method.scales).project(weights)
        return made.scale_pos[:, 0].to(weights), made.scale_neg[:, 0].to(weights)


@dataclass(frozen=True, eq=False)
class Rows:
    """codes: float64 [O, K] of −1, 0, 1. pos, neg: float64 [O, G] ≥ 0, one tensor twice where scales are shared."""

    layout: Layout
    codes: Tensor
    pos: Tensor
    neg: Tensor

    def weights(self) -> Tensor:
        """float64 [O, K]."""
        group = self.layout.group_of()
        return self.codes * torch.where(self.codes > 0, self.pos[:, group], self.neg[:, group])

    def where(self, better: Tensor, other: Rows) -> Rows:
        """These rows, and those of `other` where `better` [O] says so."""
        pick = better[:, None]
        pos, neg = torch.where(pick, other.pos, self.pos), torch.where(pick, other.neg, self.neg)
        return replace(self, codes=torch.where(pick, other.codes, self.codes), pos=pos, neg=neg)

    def some(self, part: slice) -> Rows:
        """Only these rows."""
        return replace(self, codes=self.codes[part], pos=self.pos[part], neg=self.neg[part])

    def replaced(self, part: slice, new: Rows) -> Rows:
        """With those of `new` in place of these rows."""
        values = [self.codes.clone(), self.pos.clone(), self.neg.clone()]
        for value, some in zip(values, (new.codes, new.pos, new.neg), strict=True):
            value[part] = some
        return Rows(self.layout, *values)

    def ternary(self) -> Ternary:
        """As the value the other parts use, with scales on the integer grid of deployment."""
        shape, method = self.layout.shape, self.layout.method
        codes = torch.empty_like(self.codes)
        codes[:, self.layout.order] = self.codes
        kernel = shape[2:]
        folded = codes.reshape(shape[0], *kernel, shape[1])
        plain = folded.movedim(-1, 1).contiguous().to(torch.int8)
        pos, neg = (self._expanded(side) for side in (self.pos, self.neg))
        size = min(method.group_size, shape[1])
        used = (_any_in_groups(plain > 0, size), _any_in_groups(plain < 0, size))
        if method.scales == "shared":
            return Ternary.of(plain, pos, size).snap()
        # a side that no code uses follows the other one
        pos, neg = torch.where(used[0], pos, neg), torch.where(used[1], neg, pos)
        return Ternary(plain, pos, neg, size).snap()

    def _expanded(self, side: Tensor) -> Tensor:
        """[O, G] as `Ternary` has it: [O, ceil(I / N), kh, kw]."""
        shape, method = self.layout.shape, self.layout.method
        kernel = shape[2:]
        if method.group == "kernels":
            return side.float().reshape(*side.shape, *[1] * len(kernel)).expand(-1, -1, *kernel).contiguous()
        return side.float().reshape(shape[0], *kernel, -1).movedim(-1, 1).contiguous()


def _any_in_groups(used: Tensor, size: int) -> Tensor:
    parts = [used[:, i : i + size].any(dim=1) for i in range(0, used.shape[1], size)]
    return torch.stack(parts, dim=1)


def rows_of(ternary: Ternary, layout: Layout) -> Rows:
    """The inverse of `Rows.ternary`."""
    shape = layout.shape
    codes = ternary.codes.double().movedim(1, -1).reshape(shape[0], -1)[:, layout.order]
    sides = []
    for side in (ternary.scale_pos, ternary.scale_neg):
        if layout.method.group == "kernels":
            sides.append(side.double().flatten(2)[:, :, 0] if side.dim() > 2 else side.double())
        else:
            sides.append(side.double().movedim(1, -1).reshape(shape[0], -1))
    return Rows(layout, codes, sides[0], sides[0] if ternary.symmetric else sides[1])
