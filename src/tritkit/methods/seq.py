"""ParetoQ's stretched elastic quantization, SEQ, with three levels (Liu et al. 2025), https://arxiv.org/abs/2502.02631."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tritkit.methods._base import Method, Ternarizer, check_weight
from tritkit.methods._per import Per, as_scale, check_per, rows
from tritkit.methods.lsq import StepTernarizer
from tritkit.ternary import Ternary

_CLIP = 0.99  # the authors' code: just below 1, so that four levels never round to a fifth


@dataclass(frozen=True)
class SEQ(Method):
    """A trained range α that three levels share evenly, as ParetoQ quantizes to 1.58 bits.

    Forward, with the range α of each output channel or of the tensor:

        weight = α · round(1.5 · clip(w/α, −0.99, 0.99)) / 1.5

    so the levels are −2α/3, 0 and 2α/3, each in the middle of a third of [−α, α]: both scales are 2α/3, Δ = α/3.
    Ties: |w| = α/3 gives 0, as rounding half to even does.

    Gradients, with g = dL/dweight and rounding taken for the identity, as `LSQ`:

        dL/dw = g where |w| < 0.99 α, else 0
        dL/dα = 1/√n · Σ g · (weight/α − w/α  where |w| < 0.99 α,  else ±2/3),    n weights in the layer

    The authors' code has ±1 in place of ±2/3, which is not the derivative of the clipped levels.
    Parameters: `step`, which is α, shape [O, 1, ..., 1] or [1], in the weight's dtype. It starts at max|w|, so that
    training begins with the levels inside the weights' range, and at 1 where all weights are zero. The value used is
    |step|, so that an α pushed past zero comes back.

    per: "channel" (the paper: one α an output channel) or "tensor" (one a layer).
    """

    name: ClassVar[str] = "seq"
    summary: ClassVar[str] = "w → α·round(1.5·clip(w/α, ±0.99))/1.5 with a trained α: ±2α/3 beyond Δ = α/3"
    paper: ClassVar[str] = (
        "Liu et al. 2025, ParetoQ: Scaling Laws in Extremely Low-bit LLM Quantization, https://arxiv.org/abs/2502.02631"
    )

    per: Per = "channel"

    def __post_init__(self) -> None:
        check_per(self.per)

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        alpha = rows(weight.detach().abs(), self.per).amax(dim=1)
        return StepTernarizer(self, as_scale(alpha, weight, self.per), unit=2 / 3, clip=_CLIP)
