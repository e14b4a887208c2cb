"""Truncated-Gaussian ternarization, TGA (He & Fan 2018), https://arxiv.org/abs/1810.01018."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods._base import (
    Method,
    Ternarizer,
    check_choice,
    check_range,
    check_weight,
    codes_of,
    where_positive,
)
from tritkit.ternary import Ternary

_LEAST_SPREAD = 0.01  # of |μ| + Δ: below it the closed form loses its digits in float32


@dataclass(frozen=True)
class TGA(Method):
    """A trained threshold, and the scale in closed form as if the weights were normally distributed.

    Forward, with the layer's threshold Δ and its weights' mean μ and standard deviation σ, measured in every pass:

        codes = +1 where w > Δ,  0 where |w| ≤ Δ,  −1 where w < −Δ
        S = ½ E(w | w > Δ) + ½ E(−w | w < −Δ)   for w ~ N(μ, σ²)
          = ½ σ (λ((Δ − μ)/σ) + λ((Δ + μ)/σ)),  λ(t) = φ(t) / (1 − Φ(t))
        weight = S · codes

    The first line of S is the paper's mean of two truncated normal distributions; the second follows, μ cancels.
    Ties: |w| = Δ gives 0.

    Gradients, with g = dL/dweight; μ and σ count as constants, and so do the codes:

        dL/dΔ = Σ g·codes · dS/dΔ,    dS/dΔ = ½ (λ(a)(λ(a) − a) + λ(b)(λ(b) − b)),  a, b = (Δ ∓ μ)/σ
        dL/dw = g        latent_gradient="corrected": the paper's gradient correctness, dcodes/dw = 1/S
        dL/dw = S · g    latent_gradient="scaled": without it, dcodes/dw = 1

    dL/dΔ reaches Δ through S alone. In front of a batch norm in training S does not matter, so that Σ g·codes = 0 but
    for the norm's ε, and Δ stays where it starts. It moves in classifiers, and where a residual sum comes before the
    norm; `TGAWindow` moves it everywhere. Run records show each layer's Δ.

    What is left of a sum that should be 0 is no signal. In bfloat16, rounding leaves 1e-5 of Σ |g| or more, and at the
    learning rate of the weights Δ wanders by it; Adam, which divides by the size of the gradient, makes steps of any
    remainder. So a Δ behind batch norm that moved need not have learned anything. Train in float32 with SGD to see it
    stay, or hold it with a small `scale_lr`.

    Parameters: `threshold`, shape [1], in the weight's dtype: Δ = |threshold|. Do not decay it. Both scales are S. The
    paper makes all layers ternary, the first and the last too: exclude none.

    Not the paper's: one step moves Δ and w, where the paper moves Δ first, ternarizes again, and then moves w;
    Δ = |parameter|, so that it never turns negative; and σ of at least 1 % of |μ| + Δ, which only (nearly) equal
    weights notice. The paper was not at hand: the formulas follow descriptions of it, and its starting point is taken
    from the authors' earlier code.

    threshold: Δ starts at this share of max|w|, in [0, 1).
    latent_gradient: see above.
    """

    name: ClassVar[str] = "tga"
    summary: ClassVar[str] = "w → S·{−1, 0, 1} with a trained Δ, S = E(|w| beyond Δ) for a Gaussian;  dL/dw = g"
    paper: ClassVar[str] = (
        "He, Fan 2018, Simultaneously Optimizing Weight and Quantizer of Ternary Neural Network using Truncated "
        "Gaussian Approximation, https://arxiv.org/abs/1810.01018"
    )

    threshold: float = 0.05
    latent_gradient: Literal["corrected", "scaled"] = "corrected"

    def __post_init__(self) -> None:
        check_range("threshold", self.threshold, 0, 1)
        check_choice("latent_gradient", self.latent_gradient, ("corrected", "scaled"))

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _Truncated(self, self.threshold * weight.detach().abs().amax().reshape(1))

    def half_width(self, std: Tensor) -> Tensor | None:
        """Half the width of the window around ±Δ in which codes count as moving with Δ; None: they never do."""
        return None


@dataclass(frozen=True)
class TGAWindow(TGA):
    """TGA whose threshold also learns from the weights it is about to move, so that it does behind batch norm too.

    Forward, the gradient of w and the parameter: as `TGA`. Ties: |w| = Δ gives 0.
    Gradient of Δ, ours and not the paper's: each code counts as a ramp from 0 at |w| = Δ − h to ±1 at Δ + h, so that

        dL/dΔ = 1/√n · (Σ g·codes · dS/dΔ − S/(2h) · Σ g·sign(w) over ||w| − Δ| < h),      h = window · σ

    for the n weights of the layer. 1/√n is the factor that LSQ gives its step, which is such a sum too: without it the
    learning rate of the weights throws Δ about.

    threshold: as `TGA`.
    latent_gradient: as `TGA`.
    window: h in standard deviations of the layer's weights, positive. Wider is smoother and less exact.
    """

    name: ClassVar[str] = "tga-window"
    summary: ClassVar[str] = "as tga; in dL/dΔ codes move too: dcode/dΔ = −sign(w)/2h within h of Δ"
    paper: ClassVar[str] = f"after {TGA.paper}"

    window: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("window", self.window, 0, float("inf"))
        if self.window == 0:
            raise UserError("window must be positive; the method 'tga' goes without one")

    def half_width(self, std: Tensor) -> Tensor | None:
        return self.window * std


class _Truncated(Ternarizer):
    method: TGA

    def __init__(self, method: TGA, threshold: Tensor) -> None:
        super().__init__(method)
        self.threshold = nn.Parameter(threshold)

    def forward(self, latent: Tensor) -> Tensor:
        delta = self._delta()
        mean, std = _moments(latent.detach(), delta.detach())
        scale = truncated_scale(delta.to(std), mean, std).to(latent)
        half, corrected = self.method.half_width(std), self.method.latent_gradient == "corrected"
        return cast(Tensor, _Codes.apply(latent, delta, scale, half, corrected))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        delta = self._delta()
        mean, std = _moments(latent, delta)
        scale = truncated_scale(delta.to(std), mean, std).to(latent)
        return Ternary.of(codes_of(latent, delta).to(torch.int8), scale.reshape(()).to(torch.float32))

    def delta(self, latent: Tensor) -> Tensor:
        return self._delta().detach()

    def _delta(self) -> Tensor:
        return torch.where(self.threshold < 0, -self.threshold, self.threshold)  # |·|, with a slope of 1 at 0


def truncated_scale(delta: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """S of `TGA` for Δ ≥ 0 and σ > 0. The gradient reaches all three."""
    return std / 2 * (_hazard((delta - mean) / std) + _hazard((delta + mean) / std))


def _moments(weight: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """μ and σ of all weights, in float32 at least; σ is positive."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    mean = wide.mean()
    variance = (wide - mean).square().mean()  # a tenth of the time that var_mean takes on a CPU
    least = _LEAST_SPREAD * (mean.abs() + delta.to(wide)) + torch.finfo(torch.float32).tiny
    return mean, torch.maximum(variance.sqrt(), least)


class _Hazard(torch.autograd.Function):
    """λ(t) = φ(t) / (1 − Φ(t)), by way of erfcx, which neither underflows nor cancels for large t."""

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        tail: Tensor = torch.special.erfcx(t / sqrt(2))
        return sqrt(2 / pi) / tail

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        t, hazard = ctx.saved_tensors
        slope: Tensor = hazard * (hazard - t)
        return grad * slope


def _hazard(t: Tensor) -> Tensor:
    return cast(Tensor, _Hazard.apply(t))  # type: ignore[no-untyped-call]


class _Codes(torch.autograd.Function):
    """scale · codes; half is None for `TGA`."""

    @staticmethod
    def forward(latent: Tensor, delta: Tensor, scale: Tensor, half: Tensor | None, corrected: bool) -> Tensor:
        return codes_of(latent, delta) * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, bool], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.corrected = inputs[4]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None]:
        latent, delta, scale, half = ctx.saved_tensors
        to_latent = grad if ctx.corrected else grad * scale
        to_scale = (grad * codes_of(latent, delta)).sum().reshape(1)
        if half is None:
            return to_latent, None, to_scale, None, None
        near = half.to(latent) - (latent.abs() - delta).abs()
        moving = where_positive(grad * latent.sign(), near).sum()
        factor = 1 / sqrt(latent.numel())
        to_delta = (-factor * scale / (2 * half) * moving).to(delta)
        return to_latent, to_delta, factor * to_scale, None, None
