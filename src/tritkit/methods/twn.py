"""Ternary Weight Networks (Li, Zhang, Liu 2016), https://arxiv.org/abs/1605.04711."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tritkit.methods._base import StraightThroughMethod, check_range
from tritkit.methods._per import Per, check_per, rows


@dataclass(frozen=True)
class TWN(StraightThroughMethod):
    """The ternary weight closest to the latent one, with a threshold from the mean magnitude.

    Forward, for the tensor or each output channel, computed again in every pass:

        Δ = threshold_factor · mean|w|
        codes = +1 where w > Δ,  0 where |w| ≤ Δ,  −1 where w < −Δ
        α = mean |w| over |w| > Δ                      (the least-squares scale of these codes)
        weight = α · codes

    Ties: |w| = Δ gives 0. Where nothing is kept α = 0.
    Gradient: dL/dw = dL/dweight, unclipped; none through Δ and α.
    Parameters: none. Scales: one element, or [O, 1, ..., 1] with per="channel".

    threshold_factor: 0 or more; 0.7 is the paper's, between the optima of its models: 0.767 for Gaussian
        weights, 2/3 for uniform ones (the authors' later code uses 0.75 with per="channel").
    per: "tensor" (the paper: one scale a layer) or "channel" (one an output channel).
    """

    name: ClassVar[str] = "twn"
    summary: ClassVar[str] = "Δ = 0.7·mean|w|;  w → α·{−1, 0, 1} with α = mean |w| over |w| > Δ;  dL/dw = g"
    paper: ClassVar[str] = "Li, Zhang, Liu 2016, Ternary Weight Networks, https://arxiv.org/abs/1605.04711"

    threshold_factor: float = 0.7
    per: Per = "tensor"

    def __post_init__(self) -> None:
        check_range("threshold_factor", self.threshold_factor, 0, float("inf"))
        check_per(self.per)

    def delta(self, weight: Tensor) -> Tensor:
        return self.threshold_factor * _each(rows(weight.abs(), self.per).mean(dim=1), weight, self.per)

    def scale(self, weight: Tensor, codes: Tensor) -> Tensor:
        return _mean_kept(weight, codes, self.per)


@dataclass(frozen=True)
class TWNExact(StraightThroughMethod):
    """The ternary weight closest to the latent one, exactly.

    Forward, for the tensor or each output channel, computed again in every pass:

        min ‖w − α·codes‖²  over α ≥ 0 and codes in {−1, 0, +1}

    With the magnitudes sorted, a₁ ≥ a₂ ≥ …, the best codes keep the k largest, where k maximises (a₁ + … + a_k)²/k, and

        α = (a₁ + … + a_k)/k,    Δ = α/2,    codes = sign(w) where |w| > Δ, else 0,    weight = α · codes

    At the optimum a_k > α/2 > a_{k+1}, so the threshold picks the same k.
    Ties: no weight lies at Δ, and equal magnitudes are kept or dropped together. Of two k with one error the smaller is
    taken. Zeros stay zero, and α = 0 where all are.
    Gradient: dL/dw = dL/dweight, unclipped; none through Δ and α.
    Parameters: none. Scales: one element, or [O, 1, ..., 1] with per="channel". Every pass sorts the weights: on large
    layers `TWN`, which needs no sort, is much faster and loses little: 0.1916 ‖w‖² against 0.1902 for Gaussian weights.

    per: "tensor" (the problem the paper poses and `TWN` approximates) or "channel" (for each output channel).
    """

    name: ClassVar[str] = "twn-exact"
    summary: ClassVar[str] = "Δ = α/2 and α·{−1, 0, 1} with the least ‖w − α·codes‖², by sorting;  dL/dw = g"
    paper: ClassVar[str] = TWN.paper

    per: Per = "tensor"

    def __post_init__(self) -> None:
        check_per(self.per)

    def delta(self, weight: Tensor) -> Tensor:
        ordered = rows(weight.abs(), self.per).sort(dim=1, descending=True).values
        sums = ordered.cumsum(dim=1)
        count = torch.arange(1, sums.shape[1] + 1, dtype=weight.dtype, device=weight.device)
        best = (sums / count.sqrt()).argmax(dim=1, keepdim=True)  # the root of S²/k, which cannot overflow
        return _each((sums / count).gather(1, best)[:, 0] / 2, weight, self.per)

    def scale(self, weight: Tensor, codes: Tensor) -> Tensor:
        return _mean_kept(weight, codes, self.per)


def _mean_kept(weight: Tensor, codes: Tensor, per: Per) -> Tensor:
    """Mean |w| over the codes that are not zero, 0 where there is none: the least-squares scale."""
    kept = rows(weight * codes, per).sum(dim=1)  # Σ |w| over the kept weights
    count = rows(codes != 0, per).sum(dim=1)
    return _each(kept / count.clamp(min=1), weight, per)


def _each(values: Tensor, weight: Tensor, per: Per) -> Tensor:
    """One value a row as [] or [O, 1, ..., 1]."""
    return values.reshape(() if per == "tensor" else (-1, *[1] * (weight.dim() - 1)))
