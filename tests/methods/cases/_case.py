"""One worked case of a method."""

from __future__ import annotations

from dataclasses import dataclass, field

from tritkit.methods import Method

Rows = list[list[float]]


@dataclass(frozen=True)
class Case:
    """One latent weight [O, I] and everything a method makes of it."""

    title: str
    method: Method
    latent: Rows
    codes: list[list[int]]
    scale_pos: float | Rows  # what `project` finds
    scale_neg: float | Rows
    g: Rows
    latent_grad: Rows
    trained: tuple[float, float] | None = None  # learned scales put in place before forward and backward
    scale_grads: dict[str, list[float]] = field(default_factory=dict)
