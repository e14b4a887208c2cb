"""One value for the whole tensor or one for each output channel: what the field `per` of a method means."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tritkit.methods._base import check_choice

Per = Literal["tensor", "channel"]


def check_per(per: str) -> None:
    """UserError unless per is "tensor" or "channel"."""
    check_choice("per", per, ("tensor", "channel"))


def rows(weight: Tensor, per: Per) -> Tensor:
    """A weight [O, ...] with all that shares one value in one row: [1, n], or [O, n] for channels."""
    return weight.reshape(1 if per == "tensor" else weight.shape[0], -1)


def as_scale(values: Tensor, weight: Tensor, per: Per) -> Tensor:
    """One value a row of `rows`, as a scale of `weight`: shape [1], or [O, 1, ..., 1] for channels."""
    return values if per == "tensor" else values.reshape(-1, *[1] * (weight.dim() - 1))
