"""BitNet b1.58's absmean quantization (Ma et al. 2024), https://arxiv.org/abs/2402.17764."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tritkit.methods._base import StraightThroughMethod


@dataclass(frozen=True)
class AbsMean(StraightThroughMethod):
    """The weight in units of its mean magnitude, rounded: the quantizer of BitNet b1.58.

    Forward, for the whole tensor, computed again in every pass (eq. 1 to 3):

        γ = mean|w|
        codes = clip(round(w / γ), −1, 1)              so Δ = γ/2
        weight = γ · codes

    The paper divides by γ + ε to allow an all-zero weight; comparing |w| with γ/2 needs no ε.
    Ties: |w| = γ/2 gives 0, as rounding half to even does. All-zero weights stay zero.
    Gradient: dL/dw = dL/dweight, unclipped; none through γ.
    Parameters: none. Scales: one element. Fields: none.

    γ is not the least-squares scale of these codes: Gaussian weights become 31 % zeros with an error ‖w − weight‖² of
    26 % of ‖w‖², where the optimum (`TWNExact`) has 46 % and 19 %. In front of a batch norm the scale does not matter.
    """

    name: ClassVar[str] = "absmean"
    summary: ClassVar[str] = "γ = mean|w|;  w → γ·clip(round(w/γ), −1, 1);  dL/dw = g"
    paper: ClassVar[str] = (
        "Ma et al. 2024, The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits, "
        "https://arxiv.org/abs/2402.17764"
    )

    def delta(self, weight: Tensor) -> Tensor:
        return weight.abs().mean() / 2

    def scale(self, weight: Tensor, codes: Tensor) -> Tensor:
        return weight.abs().mean()
