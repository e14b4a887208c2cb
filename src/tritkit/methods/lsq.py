"""Learned Step Size Quantization (Esser et al. 2019) with three levels, https://arxiv.org/abs/1902.08153."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods._base import Method, Ternarizer, check_one, check_weight, codes_of, where_positive, with_codes
from tritkit.methods._per import Per, as_scale, check_per, rows
from tritkit.ternary import Ternary


@dataclass(frozen=True)
class LSQ(Method):
    """A trained step: the weight in units of it, rounded to −1, 0 or 1 (the paper's Q_N = Q_P = 1).

    Forward, with the step s of the tensor or of each output channel (eq. 1 and 2):

        weight = s · clip(round(w / s), −1, 1)         so Δ = s/2 and both scales are s

    Ties: |w| = s/2 gives 0, as rounding half to even does.

    Gradients, with g = dL/dweight and rounding taken for the identity (eq. 3 and 5):

        dL/dw = g where |w| < s, else 0
        dL/ds = 1/√(n·Q_P) · Σ g · (round(w/s) − w/s  where |w| < s,  else sign w),    n weights in the layer

    Parameters: `step`, shape [1] or [O, 1, ..., 1], in the weight's dtype. It starts at 2·mean|w|/√Q_P (section 2.1),
    and at 1 where all weights are zero. The value used is |step|, so that a step too far past zero comes back.

    per: "tensor" (the paper: one step a layer) or "channel" (one an output channel).
    """

    name: ClassVar[str] = "lsq"
    summary: ClassVar[str] = "w → s·clip(round(w/s), −1, 1) with a trained s;  dL/ds = Σ g·(round(w/s) − w/s)/√n"
    paper: ClassVar[str] = (
        "Esser, McKinstry, Bablani, Appuswamy, Modha 2019, Learned Step Size Quantization, "
        "https://arxiv.org/abs/1902.08153"
    )

    per: Per = "tensor"

    def __post_init__(self) -> None:
        check_per(self.per)

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        step = 2 * rows(weight.detach().abs(), self.per).mean(dim=1)
        return StepTernarizer(self, as_scale(step, weight, self.per), unit=1.0, clip=1.0)


class StepTernarizer(Ternarizer):
    """w → s · codes with a trained step: s = unit · |step|, Δ = s/2. Latents from `clip` steps on get no gradient."""

    def __init__(self, method: Method, step: Tensor, unit: float, clip: float) -> None:
        super().__init__(method)
        self.step = nn.Parameter(torch.where(step > 0, step, 1.0))
        self.unit, self.clip = unit, clip

    def forward(self, latent: Tensor) -> Tensor:
        return cast(Tensor, _Step.apply(latent, self._scale(), self.clip / self.unit))  # type: ignore[no-untyped-call]

    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        scale = self._scale().detach()
        codes = codes_of(latent, scale / 2).to(torch.int8)
        return Ternary.of(codes, (scale.reshape(()) if scale.numel() == 1 else scale).to(torch.float32))

    def delta(self, latent: Tensor) -> Tensor:
        return self._scale().detach() / 2

    @torch.no_grad()
    def start_(self, latent: nn.Parameter, wanted: Ternary) -> None:
        scale = wanted.scale_pos
        self.set_scales_(scale, scale if wanted.symmetric else wanted.scale_neg)
        most = (1 - 1e-3) * self.clip / self.unit * self._scale()  # from clip · step on, latents get no gradient
        latent.copy_(with_codes(latent, wanted.codes.to(latent), self._scale() / 2, most))

    @torch.no_grad()
    def set_scales_(self, pos: Tensor, neg: Tensor) -> None:
        if not torch.equal(pos, neg):
            raise UserError(f"{self.method.name} has one scale for both signs; they cannot be set apart")
        if self.step.numel() == 1:
            check_one(pos, neg, self.method)
        self.step.copy_((pos / self.unit).reshape(-1).expand(len(self.step)).reshape(self.step.shape))

    def _scale(self) -> Tensor:
        return self.unit * self.step.abs().clamp(min=torch.finfo(torch.float32).tiny)


class _Step(torch.autograd.Function):
    """scale · clip(round(latent / scale), −1, 1), and gradients as `LSQ` has them, for |latent| < clip · scale."""

    @staticmethod
    def forward(latent: Tensor, scale: Tensor, clip: float) -> Tensor:
        return codes_of(latent, scale / 2) * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.clip = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        latent, scale = ctx.saved_tensors
        inside = ctx.clip * scale - latent.abs()  # how far
        slope = codes_of(latent, scale / 2).sub_(where_positive(latent / scale, inside))
        to_scale = slope.mul_(grad).sum_to_size(scale.shape) / sqrt(latent.numel())
        return where_positive(grad, inside), to_scale, None
