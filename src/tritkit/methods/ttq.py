"""Trained Ternary Quantization (Zhu, Han, Mao, Dally 2016), https://arxiv.org/abs/1612.01064."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from tritkit.methods._base import (
    Method,
    Ternarizer,
    beyond,
    check_choice,
    check_one,
    check_range,
    check_weight,
    codes_of,
    where_positive,
    with_codes,
)
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
        return self.threshold * weight.abs().amax()


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
        function = _Scaled if self.method.latent_gradient == "paper" else _ScaledStraightThrough
        arguments = latent, self.delta(latent), self.scale_pos, self.scale_neg
        return cast(Tensor, function.apply(*arguments))  # type: ignore[no-untyped-call]

    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        pos, neg = (s.detach().clamp(min=_FLOOR).to(torch.float32) for s in (self.scale_pos, self.scale_neg))
        codes = codes_of(latent, self.delta(latent)).to(torch.int8)
        return Ternary(codes, pos.reshape(()), neg.reshape(()))

    def delta(self, latent: Tensor) -> Tensor:
        return self.method.delta(latent.detach())

    @torch.no_grad()
    def start_(self, latent: nn.Parameter, wanted: Ternary) -> None:
        self.set_scales_(wanted.scale_pos, wanted.scale_neg)
        codes = wanted.codes.to(latent)
        most = (latent * codes).amax()  # stays the largest magnitude, which sets Δ
        if isinstance(self.method, TTQ) and most > 0:
            latent.copy_(with_codes(latent, codes, self.method.threshold * most, most))
        else:
            super().start_(latent, wanted)

    @torch.no_grad()
    def set_scales_(self, pos: Tensor, neg: Tensor) -> None:
        check_one(pos, neg, self.method)
        self.scale_pos.copy_(pos.reshape(1))
        self.scale_neg.copy_(neg.reshape(1))


class _ScaledStraightThrough(torch.autograd.Function):
    """weight = +Wp, 0, −Wn; the latent receives the gradient as it is. The backward pass makes the weight again, which
    takes no memory in between and less time than to unpack small codes.
    """

    @staticmethod
    def forward(latent: Tensor, delta: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return _weight(latent, delta, pos, neg)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        _, _, pos, neg = ctx.saved_tensors
        return grad, None, *_scale_gradients(grad, _weight(*ctx.saved_tensors), pos, neg)


class _Scaled(_ScaledStraightThrough):
    """The same with the latent gradient of eq. 8."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        _, _, pos, neg = ctx.saved_tensors
        weight = _weight(*ctx.saved_tensors)
        to_scales = _scale_gradients(grad, weight, pos, neg)
        zero = torch.eq(weight, 0, out=torch.empty_like(weight))  # these are the codes 0, as scales are positive
        return weight.abs_().add_(zero).mul_(grad), None, *to_scales


def _weight(latent: Tensor, delta: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
    plus, minus = beyond(latent, delta)
    return plus.mul_(pos.clamp(min=_FLOOR)).sub_(minus.mul_(neg.clamp(min=_FLOOR)))


def _scale_gradients(grad: Tensor, weight: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dWp and dL/dWn, shape [1]."""
    plus = where_positive(grad, weight).sum().reshape(1)
    minus = where_positive(grad, -weight).sum().reshape(1)
    return _upwards(plus, pos), _upwards(-minus, neg)


def _upwards(grad: Tensor, scale: Tensor) -> Tensor:
    """The gradient of a scale; below MIN_SCALE it may only raise it."""
    return torch.where((scale < MIN_SCALE) & (grad > 0), 0.0, grad)
