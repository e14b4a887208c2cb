"""Binary-Weight-Networks, the weight-only half of XNOR-Net (Rastegari et al. 2016), https://arxiv.org/abs/1603.05279."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from tritkit.methods._base import Method, Ternarizer, check_choice, check_weight, where_positive
from tritkit.ternary import Ternary


@dataclass(frozen=True)
class BWN(Method):
    """The binary weight closest to the latent one, with a scale for each filter.

    Forward, for each output channel of n weights, computed again in every pass:

        α = mean|w|                                    (the least-squares scale of these signs)
        weight = α · sign(w)

    Ties: sign(0) = +1. A channel whose weights are all 0 has α = 0 and codes 0; no other code is 0.
    Gradient, with g = dL/dweight:

        dL/dw_i = g_i · (1/n + α · 1[|w_i| ≤ 1])                                latent_gradient="paper"
        dL/dw_i = sign(w_i)/n · Σ_j g_j · sign(w_j) + α · 1[|w_i| ≤ 1] · g_i    latent_gradient="full"

    The second term is the straight-through sign. The first is dα/dw: the paper prints what the weight i itself
    contributes to it, "full" is the whole derivative, in which all weights of the channel share one α.
    Parameters: none. Scales: [O, 1, ..., 1].

    Both forms carry the factor α, so that for float weights of usual size (α of some 0.02) SGD needs a larger
    learning rate than for straight-through methods; Adam does not notice. Some training scripts also centre
    the latents over the input channels and clamp them to [−1, 1] before each pass; the paper's algorithm does
    not, and neither does this. Start from float weights as they are: the scale comes from them.

    latent_gradient: see above.
    """

    name: ClassVar[str] = "bwn"
    summary: ClassVar[str] = "w → α·{−1, 1} with α = mean|w| a filter;  dL/dw = g·(1/n + α·1[|w| ≤ 1])"
    paper: ClassVar[str] = (
        "Rastegari, Ordonez, Redmon, Farhadi 2016, XNOR-Net: ImageNet Classification Using Binary Convolutional "
        "Neural Networks, https://arxiv.org/abs/1603.05279"
    )

    latent_gradient: Literal["paper", "full"] = "paper"

    def __post_init__(self) -> None:
        check_choice("latent_gradient", self.latent_gradient, ("paper", "full"))

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _ScaledSigns(self)


def signs(weight: Tensor) -> Tensor:
    """Codes without a zero, in the weight's dtype: +1 where w ≥ 0, else −1. codes(−w) = −codes(w) but for w = 0."""
    weight = weight.detach()
    return torch.ge(weight, 0, out=torch.empty_like(weight)).mul_(2).sub_(1)


def binary(weight: Tensor, scale: Tensor) -> Ternary:
    """The value scale · sign(w); where the scale is 0 the codes are 0 too, as `Ternary` demands."""
    scale = scale.detach().to(torch.float32)
    return Ternary.of(signs(weight).to(torch.int8) * (scale > 0), scale)


class _ScaledSigns(Ternarizer):
    method: BWN

    def forward(self, latent: Tensor) -> Tensor:
        function = _Paper if self.method.latent_gradient == "paper" else _Full
        alpha = _mean_magnitude(latent.detach())
        return cast(Tensor, function.apply(latent, alpha))  # type: ignore[no-untyped-call]

    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        return binary(latent, _mean_magnitude(latent))

    def delta(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(())


def _mean_magnitude(weight: Tensor) -> Tensor:
    """α of each output channel, [O, 1, ..., 1]."""
    return weight.abs().reshape(len(weight), -1).mean(dim=1).reshape(-1, *[1] * (weight.dim() - 1))


class _Paper(torch.autograd.Function):
    """weight = α · sign(w), with the gradient as the paper prints it."""

    @staticmethod
    def forward(latent: Tensor, alpha: Tensor) -> Tensor:
        return signs(latent) * alpha

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        latent, alpha = ctx.saved_tensors
        return grad / latent[0].numel() + _through_sign(latent, alpha, grad), None


class _Full(_Paper):
    """The same with the whole derivative of α."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        latent, alpha = ctx.saved_tensors
        code = signs(latent)
        along = (grad * code).reshape(len(latent), -1).mean(dim=1).view_as(alpha)  # dL/dα / n
        return along * code + _through_sign(latent, alpha, grad), None


def _through_sign(latent: Tensor, alpha: Tensor, grad: Tensor) -> Tensor:
    above_one = 1 + torch.finfo(latent.dtype).eps  # the next number: |w| ≤ 1 is |w| < that
    return where_positive(grad * alpha, above_one - latent.abs())
