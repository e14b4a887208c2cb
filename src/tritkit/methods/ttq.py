"""Trained Ternary Quantization (Zhu, Han, Mao, Dally 2016), https://arxiv.org/abs/1612.01064."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from tritkit.methods._base import Method, Ternarizer, check_choice, check_range, check_weight, codes_of
from tritkit.ternary import Ternary

MIN_SCALE = 1e-4
"""Gradients do not push a scale below this. One that reached zero would change the sign of a whole layer."""
_FLOOR = 1e-6  # the smallest scale used: momentum may carry one below MIN_SCALE, the codebook to MIN_SCALE / 64


@dataclass(frozen=True, kw_only=True)
class _TrainedScales(Method):
    """What `TTQ` and `TTQConstantSparsity` share: everything but the threshold."""

    init: Literal["one", "data"] = "one"
    latent_gradient: Literal["paper", "straight-through"] = "paper"

    def __post_init__(self) -> None:
        check_choice("init", self.init, ("one", "data"))
        check_choice("latent_gradient", self.latent_gradient, ("paper", "straight-through"))

    @abstractmethod
    def delta(self, weight: Tensor) -> Tensor:
        """The threshold Δ of the layer, one element."""

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _TrainedTernarizer(self, *self._first_scales(weight.detach()))

    def _first_scales(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        if self.init == "one":
            return weight.new_ones(1), weight.new_ones(1)
        codes = codes_of(weight, self.delta(weight))
        plus, minus = weight[codes > 0], weight[codes < 0]
        sides = [side.abs().mean().reshape(1) for side in (plus, minus) if side.numel()]
        if not sides:
            return weight.new_ones(1), weight.new_ones(1)
        return sides[0].clamp(min=_FLOOR), sides[-1].clamp(min=_FLOOR)


@dataclass(frozen=True)
class TTQ(_TrainedScales):
    """Two trained scales a layer and a threshold at a fixed share of the largest weight.

    Forward (eq. 6, 9), Δ computed again in every pass from the raw latents w:

        Δ = threshold · max|w|                         (the paper's first heuristic, section 4.2)
        weight = +Wp where w > Δ,   0 where |w| ≤ Δ,   −Wn where w < −Δ

    Ties: |w| = Δ gives 0.

    Gradients, with g = dL/dweight and Δ a constant:

        dL/dWp = + Σ g over w > Δ
        dL/dWn = − Σ g over w < −Δ                     (eq. 7 is printed without the minus)
        dL/dw  = g · (Wp, 1, Wn) on (w > Δ, |w| ≤ Δ, w < −Δ)      latent_gradient="paper", eq. 8
        dL/dw  = g                                                latent_gradient="straight-through"

    Parameters: `scale_pos` and `scale_neg`, shape [1], in the weight's dtype. The scale gradients are
    sums, so they grow with the layer; behind batch norm, where only Wp : Wn matters, SGD is stable;
    elsewhere give them a smaller learning rate (`param_groups(..., scale_lr=...)`). Scales stay
    positive: below 1e-4 a gradient that would lower the parameter further is dropped, so that it can only
    come back, and the value used is max(parameter, 1e-6).

    threshold: t of eq. 9, in [0, 1); 0.05 is the paper's for every layer and network (section 5).
    init: "one" starts at Wp = Wn = 1, as in the authors' code. "data" starts at the mean |w| of each side,
        which keeps the function of a trained network: use it with latent_gradient="straight-through",
        since eq. 8 with scales far below 1 all but freezes the weights that are not zero. A side without
        weights takes the other's mean; all-zero weights start at 1.
    latent_gradient: see above; "paper" and init="one" make eq. 8 the identity at the first step.
    """

    name: ClassVar[str] = "ttq"
    summary: ClassVar[str] = "Δ = t·max|w|;  w → +Wp, 0, −Wn with trained Wp, Wn;  dL/dw = g·{Wp, 1, Wn}"
    paper: ClassVar[str] = "Zhu, Han, Mao, Dally 2016, Trained Ternary Quantization, https://arxiv.org/abs/1612.01064"

    threshold: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("threshold", self.threshold, 0, 1)

    def delta(self, weight: Tensor) -> Tensor:
        low, high = weight.aminmax()  # max|w| without a temporary of the weight's size
        return self.threshold * torch.maximum(-low, high)


@dataclass(frozen=True)
class TTQConstantSparsity(_TrainedScales):
    """TTQ with the same share of zeros in every layer: the paper's second heuristic (section 4.2, figure 5).

    Forward: Δ = the k-th smallest |w| with k = round(sparsity · n) for n weights (Δ = 0 for k = 0), computed
    again in every pass; then as `TTQ`. Ties: |w| = Δ gives 0, so that k weights are zero, more when others
    equal Δ. All-equal magnitudes therefore give all zeros.
    Gradients, scales, `init` and `latent_gradient`: as `TTQ`.

    sparsity: r in [0, 1); the paper finds the lowest error at 0.3 to 0.5 (section 6.1.1); 0 is a binary
    network.
    """

    name: ClassVar[str] = "ttq-constant-sparsity"
    summary: ClassVar[str] = "Δ = r-quantile of |w|;  w → +Wp, 0, −Wn with trained Wp, Wn;  dL/dw = g·{Wp, 1, Wn}"
    paper: ClassVar[str] = TTQ.paper

    sparsity: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sparsity", self.sparsity, 0, 1)

    def delta(self, weight: Tensor) -> Tensor:
        k = round(self.sparsity * weight.numel())
        return weight.abs().flatten().kthvalue(k).values if k else weight.new_zeros(())


class _TrainedTernarizer(Ternarizer):
    method: _TrainedScales

    def __init__(self, method: _TrainedScales, scale_pos: Tensor, scale_neg: Tensor) -> None:
        super().__init__(method)
        self.scale_pos = nn.Parameter(scale_pos)
        self.scale_neg = nn.Parameter(scale_neg)

    def forward(self, latent: Tensor) -> Tensor:
        codes = self._codes(latent)
        scales = _positive(self.scale_pos), _positive(self.scale_neg)
        if self.method.latent_gradient == "paper":
            return _scaled_codes(_ScaledCodes, latent, codes, *scales)
        return _scaled_codes(_ScaledCodesStraightThrough, latent, codes, *scales)

    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        pos, neg = (s.detach().clamp(min=_FLOOR).to(torch.float32) for s in (self.scale_pos, self.scale_neg))
        return Ternary(self._codes(latent), pos.reshape(()), neg.reshape(()))

    def delta(self, latent: Tensor) -> Tensor:
        return self.method.delta(latent.detach())

    @torch.no_grad()
    def set_scales_(self, pos: Tensor, neg: Tensor) -> None:
        self.scale_pos.copy_(pos.reshape(1))
        self.scale_neg.copy_(neg.reshape(1))

    @torch.no_grad()
    def _codes(self, latent: Tensor) -> Tensor:
        return codes_of(latent, self.method.delta(latent))


class _ScaledCodesStraightThrough(torch.autograd.Function):
    """weight = (Wp, 0, −Wn)[codes]; the latent only receives the gradient."""

    @staticmethod
    def forward(latent: Tensor, codes: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return torch.where(codes > 0, pos, torch.where(codes < 0, -neg, 0.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        codes, _, _ = ctx.saved_tensors
        return grad, None, *_scale_gradients(codes, grad)


class _ScaledCodes(_ScaledCodesStraightThrough):
    """The same with the latent gradient of eq. 8."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        codes, pos, neg = ctx.saved_tensors
        factor = torch.where(codes > 0, pos, torch.where(codes < 0, neg, 1.0))
        return grad * factor, None, *_scale_gradients(codes, grad)


def _scaled_codes(
    function: type[torch.autograd.Function], latent: Tensor, codes: Tensor, pos: Tensor, neg: Tensor
) -> Tensor:
    return cast(Tensor, function.apply(latent, codes, pos, neg))  # type: ignore[no-untyped-call]


def _scale_gradients(codes: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dWp and dL/dWn, shape [1]; `where` and not a product, which would make NaN of an infinite
    gradient × 0.
    """
    plus = torch.where(codes > 0, grad, 0.0).sum()
    minus = torch.where(codes < 0, grad, 0.0).sum()
    return plus.reshape(1), -minus.reshape(1)


class _Positive(torch.autograd.Function):
    """max(scale, _FLOOR); below MIN_SCALE the gradient may only raise the scale."""

    @staticmethod
    def forward(scale: Tensor) -> Tensor:
        return scale.clamp(min=_FLOOR)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (scale,) = ctx.saved_tensors
        return torch.where((scale < MIN_SCALE) & (grad > 0), 0.0, grad)


def _positive(scale: Tensor) -> Tensor:
    return cast(Tensor, _Positive.apply(scale))  # type: ignore[no-untyped-call]
