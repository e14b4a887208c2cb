"""Ternary Weight Networks (Li, Zhang, Liu 2016), https://arxiv.org/abs/1605.04711."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from tritkit.methods._base import StraightThroughMethod, check_choice, check_range


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

    threshold_factor: positive; 0.7 is the paper's, between the optima of its models: 0.767 for Gaussian
        weights, 2/3 for uniform ones (the authors' later code uses 0.75 with per="channel").
    per: "tensor" (the paper: one scale a layer) or "channel" (one an output channel).
    """

    name: ClassVar[str] = "twn"
    summary: ClassVar[str] = "Δ = 0.7·mean|w|;  w → α·{−1, 0, 1} with α = mean |w| over |w| > Δ;  dL/dw = g"
    paper: ClassVar[str] = "Li, Zhang, Liu 2016, Ternary Weight Networks, https://arxiv.org/abs/1605.04711"

    threshold_factor: float = 0.7
    per: Literal["tensor", "channel"] = "tensor"

    def __post_init__(self) -> None:
        check_range("threshold_factor", self.threshold_factor, 0, float("inf"))
        check_choice("per", self.per, ("tensor", "channel"))

    def delta(self, weight: Tensor) -> Tensor:
        return self.threshold_factor * self._rows(weight.abs()).mean(dim=1).reshape(self._shape(weight))

    def scale(self, weight: Tensor, codes: Tensor) -> Tensor:
        kept = self._rows(weight * codes).sum(dim=1)  # Σ |w| over the kept weights
        count = self._rows(codes != 0).sum(dim=1)
        return (kept / count.clamp(min=1)).reshape(self._shape(weight))

    def _rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(1 if self.per == "tensor" else weight.shape[0], -1)

    def _shape(self, weight: Tensor) -> tuple[int, ...]:
        return () if self.per == "tensor" else (weight.shape[0], *[1] * (weight.dim() - 1))
