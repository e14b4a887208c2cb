"""Codes and scales of one layer that keep its outputs: every routine lowers (w − w')·H·(w − w')ᵀ, row by row.

w: the wanted weights, float64 [O, K]; w': the ternary ones; H: float64 [K, K], positive definite; the columns of all
in the order of the layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product

import torch
from torch import Tensor

from tritkit.post.groups import Layout, Rows
from tritkit.ternary import powers_of_two

__all__ = [
    "compensated",
    "descended",
    "given",
    "improved",
    "of_grid",
    "plain",
    "refitted",
    "rounded",
    "row_errors",
    "solved",
    "tried",
]


EXACT = 4
"""The largest groups whose codes are all tried."""
_NEAR = 1024
"""Columns: with more, to spread every error over all of them is bound by memory."""

Scales = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""The number of a group and its weights [O, n] to its scales (Wp, Wn) [O]."""


def row_errors(w: Tensor, rows: Rows, h: Tensor) -> Tensor:
    """(w − w')·H·(w − w')ᵀ of each row [O]."""
    gap = w - rows.weights()
    errors: Tensor = torch.linalg.vecdot(gap @ h, gap)
    return errors


def solved(w: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """The weights that map the inputs to the wanted outputs best, starting from w: w + (C − w·H)·H⁻¹."""
    step: Tensor = torch.linalg.solve(h, (c - w @ h).T)
    return w + step.T


def plain(w: Tensor, layout: Layout) -> Rows:
    """The closest ternary weights, group by group, whatever the inputs: FGQ."""
    pos, neg, codes = [], [], []
    for start, stop in zip(layout.bounds, layout.bounds[1:], strict=False):
        p, n = layout.scales(w[:, start:stop])
        pos.append(p)
        neg.append(n)
        codes.append(_nearest(w[:, start:stop], p[:, None], n[:, None]))
    return _rows(layout, torch.cat(codes, dim=1), torch.stack(pos, 1), torch.stack(neg, 1))


def compensated(w: Tensor, layout: Layout, h: Tensor, scales: Scales | None = None) -> Rows:
    """Column by column: each takes its nearest code, and what that is wrong by is spread over the columns to come, by
    the inverse of H (Frantar et al. 2022, GPTQ, https://arxiv.org/abs/2210.17323).

    scales: gives those of a group for its weights as the columns before it have left them; None: the method's exact
        ones.
    """
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    w, errors = w.clone(), torch.zeros_like(w)
    begin, end = 0, _NEAR  # columns that errors are spread over at once; those behind `end` wait for a product of many
    codes = torch.zeros_like(w)
    pos = w.new_zeros(len(w), layout.groups)
    neg = w.new_zeros(len(w), layout.groups)
    for g, (start, stop) in enumerate(zip(layout.bounds, layout.bounds[1:], strict=False)):
        if stop > end:
            w[:, end:] -= errors[:, begin:start] @ upper[begin:start, end:]
            begin, end = start, max(start + _NEAR, stop)
        p, n = layout.scales(w[:, start:stop]) if scales is None else scales(g, w[:, start:stop])
        pos[:, g], neg[:, g] = p, n
        for k in range(start, stop):
            codes[:, k] = _nearest(w[:, k], p, n)
            value = codes[:, k] * torch.where(codes[:, k] > 0, p, n)
            errors[:, k] = (w[:, k] - value) / upper[k, k]
            w[:, k:end] -= torch.outer(errors[:, k], upper[k, k:end])
    return _rows(layout, codes, pos, neg)


def given(rows: Rows) -> Scales:
    """For `compensated`: the scales that these rows have."""
    return lambda group, _: (rows.pos[:, group], rows.neg[:, group])


def of_grid(rows: Rows) -> Scales:
    """For `compensated`: of 1, 1/2, ... 1/64 times the largest scale of the row, the one with whose nearest codes a
    group's weights lose least.
    """
    grid = _powers_below_top(rows)

    def best(sizes: Tensor) -> Tensor:
        left = sizes[:, :, None] - grid[:, None, :] * (sizes[:, :, None] > grid[:, None, :] / 2)
        return grid.gather(1, left.square().sum(dim=1).argmin(dim=1, keepdim=True))[:, 0]

    def scales(_: int, weights: Tensor) -> tuple[Tensor, Tensor]:
        if rows.layout.method.scales == "shared":
            return (both := best(weights.abs())), both
        return best(weights.clamp(min=0)), best((-weights).clamp(min=0))

    return scales


def _powers_below_top(rows: Rows) -> Tensor:
    """[O, 7]: 1, 1/2, ... 1/64 times the largest scale of each row."""
    return torch.maximum(rows.pos, rows.neg).amax(dim=1, keepdim=True) / 2.0 ** torch.arange(7)


def refitted(w: Tensor, rows: Rows, h: Tensor) -> Rows:
    """The same codes with the best scales: for each row the normal equations of its G scales, with w·H on the right.

    A row whose best scales are not all positive keeps its own where they are not.
    """
    size = _stacked(rows).shape[1]
    left, right = w.new_zeros(len(w), size, size), w.new_zeros(len(w), size)
    wanted = w @ h
    for o, (codes, of) in enumerate(zip(rows.codes, _scale_of(rows), strict=True)):
        half = h.new_zeros(size, len(h)).index_add_(0, of, h * codes[:, None] * codes)
        left[o].index_add_(1, of, half)
        right[o].index_add_(0, of, codes * wanted[o])
    old = _stacked(rows)
    diagonal = left.diagonal(dim1=1, dim2=2)
    dead = diagonal <= 0  # no code uses the scale
    left = left + torch.diag_embed(torch.where(dead, 1.0, 1e-9 * diagonal))
    new = torch.linalg.solve(left, torch.where(dead, old, right))
    bad = (new <= 0) & ~dead
    return _unstacked(rows, torch.where(bad, old, new))


def rounded(rows: Rows, h: Tensor) -> Rows:
    """The same codes with scales that the method's multipliers allow.

    Of power-of-two multipliers a row gets those of least squared error, where a scale counts as much as the mean
    square of the inputs that its codes take in. Any others are as they are; `Rows.ternary` makes them whole numbers.
    """
    if rows.layout.method.multipliers == "any":
        return rows
    scales = _stacked(rows)
    counts = torch.zeros_like(scales).scatter_add_(1, _scale_of(rows), rows.codes.abs() * h.diagonal())
    return _unstacked(rows, powers_of_two(scales, counts))


def descended(w: Tensor, rows: Rows, h: Tensor, sweeps: int) -> Rows:
    """Coordinate descent on the codes, scales fixed: each weight in turn takes the code that leaves the least error.
    It ends early where a sweep changes nothing.
    """
    group = rows.layout.group_of()
    pos, neg = rows.pos[:, group], rows.neg[:, group]
    codes, now = rows.codes.clone(), rows.weights()
    slope = (now - w) @ h  # half the gradient
    diagonal = h.diagonal()
    for _ in range(sweeps):
        changed = 0
        for k in range(w.shape[1]):
            wanted = now[:, k] - slope[:, k] / diagonal[k]  # the best real value of this weight
            code = _nearest(wanted, pos[:, k], neg[:, k])
            value = code * torch.where(code > 0, pos[:, k], neg[:, k])
            step = value - now[:, k]
            moved = step.nonzero()[:, 0]
            if len(moved):
                slope[moved] += torch.outer(step[moved], h[k])
                codes[:, k], now[:, k] = code, value
                changed += len(moved)
        if not changed:
            break
    return replace(rows, codes=codes)


def improved(w: Tensor, rows: Rows, h: Tensor, sweeps: int) -> Rows:
    """Better codes and scales by the strongest search there is for these groups: all codes of small ones are `tried`;
    large ones get the best scales, where their multipliers are free, and are `descended`.
    """
    method = rows.layout.method
    if method.scales == "shared" and max(torch.tensor(rows.layout.bounds).diff()) <= EXACT:
        return tried(w, rows, h, sweeps)
    return descended(w, rows if method.multipliers == "power-of-two" else refitted(w, rows, h), h, sweeps)


def tried(w: Tensor, rows: Rows, h: Tensor, sweeps: int) -> Rows:
    """Group by group, all others fixed: of all 3^n codes with the best scale each, the ones that leave the least error.

    With H_g the group's block of H and b = w'_g·H_g − ((w' − w)·H)_g, codes c with scale s change the error of the row
    by s²·c·H_g·cᵀ − 2·s·b·cᵀ from what it is without the group. For shared scales and small groups. Scales are free, or
    1, 1/2, ... 1/64 of the largest of the row where multipliers are powers of two.
    """
    codes, pos, now = rows.codes.clone(), rows.pos.clone(), rows.weights()
    grid = _powers_below_top(rows) if rows.layout.method.multipliers == "power-of-two" else None
    slope = (now - w) @ h
    for _ in range(sweeps):
        before = codes.clone()
        for g, (start, stop) in enumerate(zip(rows.layout.bounds, rows.layout.bounds[1:], strict=False)):
            part = slice(start, stop)
            block, old = h[part, part], now[:, part]
            pull = old @ block - slope[:, part]
            chosen, scale, change = _best_codes(pull, block, grid)
            worth = change < ((old @ block - 2 * pull) * old).sum(dim=1) * (1 + 1e-9) - 1e-300
            new = torch.where(worth[:, None], chosen * scale[:, None], old)
            slope += (new - old) @ h[part]
            codes[:, part] = torch.where(worth[:, None], chosen, codes[:, part])
            pos[:, g] = torch.where(worth, scale, pos[:, g])
            now[:, part] = new
        if torch.equal(codes, before):
            break
    return replace(rows, codes=codes, pos=pos, neg=pos)


def _best_codes(pull: Tensor, block: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(codes [O, n], scale [O], change of the error [O]) for b = pull [O, n], H_g = block and, unless scales are free,
    those allowed, grid [O, S].
    """
    patterns = _patterns(len(block))
    power = ((patterns @ block) * patterns).sum(dim=1)
    along = pull @ patterns.T
    if grid is None:
        change, best = (-along.square() / power).min(dim=1)
        scale = along.gather(1, best[:, None])[:, 0].abs() / power[best]
    else:
        changes = grid[:, :, None].square() * power - 2 * grid[:, :, None] * along.abs()[:, None, :]
        change, place = changes.flatten(1).min(dim=1)
        best = place % len(patterns)
        scale = grid.gather(1, place[:, None] // len(patterns))[:, 0]
    sign = along.gather(1, best[:, None])[:, 0].sign()
    return patterns[best] * sign[:, None], scale, change


@cache
def _patterns(n: int) -> Tensor:
    """float64 [(3^n − 1) / 2, n]: all codes but zero, of c and −c one."""
    every = [codes for codes in product((-1.0, 0.0, 1.0), repeat=n) if codes > (0.0,) * n]
    return torch.tensor(every, dtype=torch.float64)


def _nearest(w: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
    """The code whose value is closest to w; halfway gives 0."""
    return (w > pos / 2).to(w) * (pos > 0) - (w < -neg / 2).to(w) * (neg > 0)


def _rows(layout: Layout, codes: Tensor, pos: Tensor, neg: Tensor) -> Rows:
    return Rows(layout, codes, pos, pos if layout.method.scales == "shared" else neg)


def _scale_of(rows: Rows) -> Tensor:
    """int64 [O, K]: which of `_stacked(rows)` scales each weight."""
    group = rows.layout.group_of().expand(rows.codes.shape)
    if rows.layout.method.scales == "shared":
        return group
    return group + rows.layout.groups * (rows.codes < 0)


def _stacked(rows: Rows) -> Tensor:
    return rows.pos if rows.layout.method.scales == "shared" else torch.cat([rows.pos, rows.neg], dim=1)


def _unstacked(rows: Rows, scales: Tensor) -> Rows:
    if rows.layout.method.scales == "shared":
        return replace(rows, pos=scales, neg=scales)
    pos, neg = scales.chunk(2, dim=1)
    return replace(rows, pos=pos, neg=neg)
