"""The steps of post-training quantization, each a class of its own, and the two ways to put them together.

Weight steps turn what a layer should compute into codes and scales; norm steps then set its batch norm. A step sees one
layer at a time, with the inputs that the ternary layers before it give.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tritkit.errors import UserError
from tritkit.post import search
from tritkit.post.groups import Layout, Rows
from tritkit.post.moments import Moments
from tritkit.ternary import Ternary

__all__ = [
    "Compensate",
    "Descend",
    "Fold",
    "MatchMoments",
    "Nearest",
    "NormStep",
    "Regress",
    "Scaling",
    "Solve",
    "WeightStep",
]


@dataclass(eq=False)
class Fold:
    """What the weight steps hand on, columns in the layout's order.

    start: the float layer's weights, float64 [O, K]. w: the wanted ones. rows: the ternary ones so far.
    h, c: the layer's `Moments`, with `ridge` on h's diagonal, which holds weights near `start`.
    """

    layout: Layout
    start: Tensor
    h: Tensor
    c: Tensor
    ridge: float
    rows: Rows | None = None
    w: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.w = self.start

    def ternary(self) -> Ternary:
        """The rows on the grid of deployment."""
        return self.taken().ternary()

    def offer(self, rows: Rows) -> Rows:
        """Take each row of `rows`, its scales rounded as the method asks for, that has the lower error; the rows as
        they are then.
        """
        rows = search.rounded(rows, self.h)
        if self.rows is not None:
            new, old = (search.row_errors(self.w, r, self.h) for r in (rows, self.rows))
            rows = self.rows.where(new < old, rows)
        self.rows = rows
        return rows

    def taken(self) -> Rows:
        """The rows so far. UserError where no step gave codes."""
        if self.rows is None:
            raise UserError("none of the weight steps gives codes; add Nearest or Compensate")
        return self.rows


class WeightStep(ABC):
    """One step on the weights of a layer."""

    @abstractmethod
    def __call__(self, fold: Fold) -> None:
        """Change `fold.w` or `fold.rows`."""


@dataclass(frozen=True)
class Nearest(WeightStep):
    """The closest ternary weights, whatever the inputs: the paper's."""

    def __call__(self, fold: Fold) -> None:
        fold.offer(search.plain(fold.w, fold.layout))


@dataclass(frozen=True)
class Solve(WeightStep):
    """First move the wanted weights to those that give the float layer's outputs from the ternary network's inputs."""

    def __call__(self, fold: Fold) -> None:
        fold.w = search.solved(fold.start, fold.h, fold.c)


@dataclass(frozen=True)
class Compensate(WeightStep):
    """Column by column, errors spread over the columns to come (GPTQ). passes: after the first, each starts again from
    the wanted weights with the scales of the pass before, fitted together to its codes. Where multipliers are powers of
    two, a last pass takes for each group the best of them, of the unit that was found.
    """

    passes: int = 1

    def __call__(self, fold: Fold) -> None:
        rows = search.compensated(fold.w, fold.layout, fold.h)
        fold.offer(rows)
        for _ in range(self.passes - 1):
            fitted = search.refitted(fold.w, rows, fold.h)
            rows = search.compensated(fold.w, fold.layout, fold.h, search.given(fitted))
            fold.offer(rows)
        if fold.layout.method.multipliers == "power-of-two":
            fold.offer(search.compensated(fold.w, fold.layout, fold.h, search.of_grid(fold.taken())))


@dataclass(frozen=True)
class Descend(WeightStep):
    """In turn: the scales of a row fitted together, then coordinate descent on its codes; `rounds` times."""

    rounds: int = 3
    sweeps: int = 5

    def __call__(self, fold: Fold) -> None:
        if fold.rows is None:
            fold.offer(search.plain(fold.w, fold.layout))
        for _ in range(self.rounds):
            fold.offer(search.descended(fold.w, self._refit(fold), fold.h, self.sweeps))
        self._refit(fold)

    def _refit(self, fold: Fold) -> Rows:
        """The rows, with better scales where there are."""
        return fold.offer(search.refitted(fold.w, fold.taken(), fold.h))


@dataclass(frozen=True)
class Scaling:
    """factor, shift: float64 [O]: output = factor · (w'·x) + shift."""

    factor: Tensor
    shift: Tensor


class NormStep(ABC):
    """How the scale and shift behind a ternary layer are chosen."""

    @abstractmethod
    def __call__(self, q: Tensor, moments: Moments) -> Scaling:
        """For ternary weights q [O, K], float64, and the layer's moments."""


@dataclass(frozen=True)
class Regress(NormStep):
    """Scale and shift of each channel by least squares to the wanted outputs."""

    def __call__(self, q: Tensor, moments: Moments) -> Scaling:
        power = moments.variance(q)
        factor = torch.where(power > 0, (q * moments.c).sum(dim=1) / power.clamp(min=1e-30), 1.0)
        return _through_means(torch.where(factor > 0, factor, 1.0), q, moments)


@dataclass(frozen=True)
class MatchMoments(NormStep):
    """Scale and shift that give each channel the mean and variance of the wanted outputs on the calibration images."""

    def __call__(self, q: Tensor, moments: Moments) -> Scaling:
        power = moments.variance(q)
        factor = torch.where(power > 0, (moments.t_var / power.clamp(min=1e-30)).sqrt(), 1.0)
        return _through_means(torch.where(factor > 0, factor, 1.0), q, moments)


def _through_means(factor: Tensor, q: Tensor, moments: Moments) -> Scaling:
    return Scaling(factor, moments.t_mean - factor * (q @ moments.x_mean))
