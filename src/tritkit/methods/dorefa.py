"""DoReFa-Net's weights (Zhou et al. 2016), https://arxiv.org/abs/1606.06160. `tritkit.low_bit` has the rest of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tritkit.errors import UnsupportedError, UserError
from tritkit.methods._base import Method, Ternarizer, check_weight, straight_through
from tritkit.methods.bwn import binary, signs
from tritkit.ternary import Ternary

MAX_BITS = 16
"""More bits than this are float32 in all but name."""


@dataclass(frozen=True)
class DoReFa(Method):
    """k-bit weights: their signs for k = 1, evenly spaced levels in [−1, 1] for k > 1.

    Forward, for the layer, computed again in every pass, with quantize(x) = round((2^k − 1) · x) / (2^k − 1):

        weight = α · sign(w),  α = mean|w|                                                   k = 1
        weight = 2 · quantize(tanh(w) / (2 · max|tanh(w)|) + 1/2) − 1                        k > 1

    Ties: sign(0) = +1; for k = 1 a layer whose weights are all 0 has α = 0 and codes 0. quantize rounds half to even.
    Gradient: dL/dw = dL/dweight for k = 1, none through α. For k > 1 quantize passes it unchanged, and it flows on
    through tanh and through the maximum (shared between equal maxima), as in the authors' code.
    Parameters: none. Scales for k = 1: one element.

    Only k = 1 is ternary. The 2^k levels ±1/(2^k − 1), ±3/(2^k − 1), ..., ±1 of k > 1 are symmetric and even in
    number, so none of them is 0: 2 bits are −1, −1/3, 1/3, 1. They fill [−1, 1] whatever the weights were, and
    want batch norm behind the layer.

    weight_bits: k, 1 to 16.
    """

    name: ClassVar[str] = "dorefa"
    summary: ClassVar[str] = "w → mean|w|·sign(w) for 1 bit;  2^k levels of tanh(w) / max|tanh(w)| for k bits"
    paper: ClassVar[str] = (
        "Zhou, Wu, Ni, Zhou, Wen, Zou 2016, DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low "
        "Bitwidth Gradients, https://arxiv.org/abs/1606.06160"
    )

    weight_bits: int = 1

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)

    @property
    def why_not_ternary(self) -> str | None:
        if self.weight_bits == 1:
            return None
        k = self.weight_bits
        return f"DoReFa weights of {k} bits have {2**k} levels and no zero; only those of 1 bit are ternary"

    def project(self, weight: Tensor) -> Ternary:
        return self.build(weight).ternary(weight)

    def build(self, weight: Tensor) -> Ternarizer:
        check_weight(weight)
        return _OneBit(self) if self.weight_bits == 1 else _KBit(self)


class _OneBit(Ternarizer):
    def forward(self, latent: Tensor) -> Tensor:
        with torch.no_grad():
            weight = signs(latent) * latent.abs().mean()
        return straight_through(latent, weight)

    def ternary(self, latent: Tensor) -> Ternary:
        check_weight(latent)
        return binary(latent, latent.abs().mean())

    def delta(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(())


class _KBit(Ternarizer):
    method: DoReFa

    def forward(self, latent: Tensor) -> Tensor:
        bounded = torch.tanh(latent)
        top = bounded.abs().amax()
        unit = bounded / (2 * torch.where(top > 0, top, 1.0)) + 0.5  # all-zero weights are all 1/2
        return 2 * quantize(unit, self.method.weight_bits) - 1

    def ternary(self, latent: Tensor) -> Ternary:
        raise UnsupportedError(str(self.method.why_not_ternary))

    def delta(self, latent: Tensor) -> Tensor:
        raise UnsupportedError(str(self.method.why_not_ternary))


def quantize(x: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits levels i / (2^bits − 1) for x in [0, 1], halves to even; its gradient is the identity."""
    levels = 2**bits - 1
    return straight_through(x, torch.round(x.detach() * levels) / levels)


def check_bits(name: str, bits: int, also: tuple[int, ...] = ()) -> None:
    """UserError unless bits is an integer from 1 to 16, or one of `also`."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not (1 <= bits <= MAX_BITS or bits in also):
        allowed = " or ".join([f"an integer from 1 to {MAX_BITS}", *map(str, also)])
        raise UserError(f"{name} must be {allowed}, got {bits!r}")
