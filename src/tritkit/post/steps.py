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
from tritkit.post.curvature import Curvature
from tritkit.post.groups import Layout, Rows
from tritkit.post.moments import Moments
from tritkit.ternary import Ternary

__all__ = [
    "Compensate",
    "Descend",
    "DescendLogits",
    "Fold",
    "MatchMoments",
    "Nearest",
    "NormStep",
    "Regress",
    "Scaling",
    "Solve",
    "WeightStep",
]

_BLOCKS = 8  # parts of the rows that descend one after the other; the rows of a part do so at once


@dataclass(eq=False)
class Fold:
    """What the weight steps hand on, columns in the layout's order.

    start: the float layer's weights, float64 [O, K]. w: the wanted ones. rows: the ternary ones so far.
    h, c: the layer's `Moments`, with `ridge` on h's diagonal, which holds weights near `start`.
    curvature: what the layer's errors do to the network's outputs, columns in the layout's order; None: not measured.
    """

    layout: Layout
    start: Tensor
    h: Tensor
    c: Tensor
    ridge: float
    curvature: Curvature | None = None
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
class DescendLogits(WeightStep):
    """Descent on what the errors D of all rows together do to the *network's* outputs, trace(G·D·A·Dᵀ): see
    `post.curvature`. Some rows at a time, with what the others are wrong by: for row o the wanted weights are
    w_o − Σ G_op/G_oo · D_p over the other rows p. `rounds` times over all rows.

    layerwise: the share of the layer's own outputs in what is kept, 0..1: of H in A, and of the identity in G, as both
        are measured on few images.
    """

    rounds: int = 2
    sweeps: int = 2
    layerwise: float = 0.2

    def __call__(self, fold: Fold) -> None:
        if fold.curvature is None:
            return
        rows = fold.taken()
        g, a = self._blended(fold.curvature, fold.h)
        gap = rows.weights() - fold.w
        size = -(-len(gap) // _BLOCKS)
        for start in [*range(0, len(gap), size)] * self.rounds:
            part = slice(start, start + size)
            others = (g[part] @ gap) / g.diagonal()[part, None] - gap[part]
            wanted = fold.w[part] - others
            new = search.improved(wanted, rows.some(part), a, self.sweeps)
            step = new.weights() - fold.w[part] - gap[part]
            along = step @ a
            if 2 * ((g[part] @ gap) * along).sum() + ((g[part, part] @ along) * step).sum() < 0:
                rows = rows.replaced(part, new)
                gap[part] += step
        fold.rows = rows

    def _blended(self, curvature: Curvature, h: Tensor) -> tuple[Tensor, Tensor]:
        """(G, A), each with its share of what the layer alone would have."""
        blended = []
        for measured, own in ((curvature.outputs, torch.eye(len(curvature.outputs)).to(h)), (curvature.inputs, h)):
            size = float(measured.diagonal().mean())
            ours = own * ((size / float(own.diagonal().mean())) if size else 1.0)
            blended.append((1 - self.layerwise) * measured + self.layerwise * ours)
        return blended[0], blended[1]


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
