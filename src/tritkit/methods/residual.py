"""Ternary weights with residual expansion (He, Gong & Fan 2018), https://arxiv.org/abs/1807.07948."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from tritkit.errors import UnsupportedError, UserError
from tritkit.methods._base import Method, Ternarizer, check_range, check_weight, codes_of, where_positive
from tritkit.ternary import Ternary


@dataclass(frozen=True)
class Residual(Method):
    """A sum of ternary weights of one latent weight, each with its own threshold: the residual expansion layer.

    Forward, for the terms i = 1 ... T, computed again in every pass:

        Δᵢ = thresholds[i] · max|w|
        codesᵢ = +1 where w > Δᵢ,  0 where |w| ≤ Δᵢ,  −1 where w < −Δᵢ
        Sᵢ = mean |w| over |w| > Δᵢ                    (0 where nothing is kept)
        weight = Σᵢ Sᵢ · codesᵢ

    which is the sum of T layers that share the latent weight. It has up to 2T + 1 values: with more than one term it is
    not ternary, so `project` refuses it and `export` takes the layer only with a policy, int8 or float32.
    Ties: |w| = Δᵢ gives 0 in term i.
    Gradient: dL/dw = T · dL/dweight where |w| < 1, else 0 (each term passes it on as it is); none through Δᵢ and Sᵢ.
    Parameters: none. Scales: one element a term. `delta` is the least Δᵢ, beyond which the weight is not zero.

    thresholds: the shares of max|w|, each in [0, 1), ascending. (0.05,) is the paper's ternary network and the only
        one to be ternary; its expansions are (0.05, 0.1) and (0.05, 0.1, 0.15, 0.2).
    """

    name: ClassVar[str] = "residual"
    summary: ClassVar[str] = "Δᵢ = tᵢ·max|w|;  w → Σᵢ Sᵢ·{−1, 0, 1}, Sᵢ = mean |w| over |w| > Δᵢ;  dL/dw = T·g, |w| < 1"
    paper: ClassVar[str] = (
        "He, Gong, Fan 2018, Optimize Deep Convolutional Neural Network with Ternarized Weights and High Accuracy, "
        "https://arxiv.org/abs/1807.07948"
    )

    thresholds: tuple[float, ...] = (0.05,)

    def __post_init__(self) -> None:
        if not isinstance(self.thresholds, (tuple, list)) or not self.thresholds:
            raise UserError(f"thresholds are one or more shares of the largest weight, got {self.thresholds!r}")
        object.__setattr__(self, "thresholds", tuple(self.thresholds))  # recipes give a list
        for threshold in self.thresholds:
            check_range("thresholds", threshold, 0, 1)
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise UserError(f"thresholds must ascend, each once, got {self.thresholds!r}")

    @property
    def why_not_ternary(self) -> str | None:
        if len(self.thresholds) == 1:
            return None
        return f"the weight is the sum of {len(self.thresholds)} ternary ones (one threshold gives one)"

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _Expansion(self)


class _Expansion(Ternarizer):
    method: Residual

    def forward(self, latent: Tensor) -> Tensor:
        with torch.no_grad():
            terms = [codes * scale for codes, scale in self._terms(latent)]
        return cast(Tensor, _Clipped.apply(latent, sum(terms[1:], terms[0]), len(terms)))  # type: ignore[no-untyped-call]

    def ternary(self, latent: Tensor) -> Ternary:
        if self.method.why_not_ternary is not None:
            raise UnsupportedError(self.method.why_not_ternary)
        check_weight(latent)
        ((codes, scale),) = self._terms(latent.detach())
        return Ternary.of(codes.to(torch.int8), scale.to(torch.float32))

    def delta(self, latent: Tensor) -> Tensor:
        return self._deltas(latent.detach())[0]

    def _deltas(self, weight: Tensor) -> list[Tensor]:
        top = weight.abs().amax()
        return [threshold * top for threshold in self.method.thresholds]

    def _terms(self, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Codes and scale of each term."""
        all_codes = [codes_of(weight, delta) for delta in self._deltas(weight)]
        return [(c, (weight * c).sum() / torch.count_nonzero(c).clamp(min=1)) for c in all_codes]


class _Clipped(torch.autograd.Function):
    """`weight` in the forward pass; backward, `terms` times the gradient where |latent| < 1."""

    @staticmethod
    def forward(latent: Tensor, weight: Tensor, terms: int) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.terms = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (latent,) = ctx.saved_tensors
        return where_positive(ctx.terms * grad, 1 - latent.abs()), None, None
