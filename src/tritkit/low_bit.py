"""DoReFa-Net whole: low-bit weights, activations and gradients (Zhou et al. 2016, https://arxiv.org/abs/1606.06160).

    dorefa_(net, *PRESETS["1-2-6"])          # before the optimizer sees the first batch; then train as ever

Weights are `methods.DoReFa`. With quantize(x, k) = round((2^k − 1) · x) / (2^k − 1):

    activation    a → quantize(clip(a, 0, 1), k)                             gradient: 1 where 0 ≤ a ≤ 1, else 0
    gradient      g → 2m · (quantize(clip(g/(2m) + 1/2 + N, 0, 1), k) − 1/2)   m = max|g| of each sample,
                                                                             N = U(−1/2, 1/2) / (2^k − 1)

The noise N makes the low-bit gradient equal g in the mean; there is no level at 0, so zeros become ±m / (2^k − 1).
It comes from PyTorch's global generator. Only the gradients of activations are quantized, as in the authors' code;
those of weights are summed from them in float.

Low-bit weights of 1 bit with 32-bit activations are an ordinary ternary network and export as one, whatever the
bits of the gradients. Low-bit activations simulate another integer network than the one `export` writes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from tritkit.methods.dorefa import DoReFa, check_bits, quantize
from tritkit.surgery import Select, ternarize_

__all__ = ["PRESETS", "QuantizeActivation", "QuantizeGradient", "dorefa_", "quantize_gradient"]

PRESETS: dict[str, tuple[int, int, int]] = {"1-32-32": (1, 32, 32), "8-8-8": (8, 8, 8), "1-2-6": (1, 2, 6)}
"""Bits of (weights, activations, gradients) by the names of the paper's tables; 32 is float."""

_FLOAT = 32


def dorefa_(
    net: nn.Module,
    weight_bits: int = 1,
    activation_bits: int = _FLOAT,
    gradient_bits: int = _FLOAT,
    exclude: Select | None = None,
) -> list[str]:
    """Give Conv2d and Linear layers low-bit weights, inputs and output gradients, in place; the layers' names.

    weight_bits: 1 to 16. activation_bits, gradient_bits: 1 to 16, or 32 for float.
    exclude: the layers to leave alone, as in `ternarize_`. None leaves out the first and the last layer, in the order
        of `named_modules`, as the paper does; () takes all.

    Activations are quantized on their way into a low-bit layer. Behind a ReLU the clip to [0, 1] takes its place, as
    clip(relu(a)) = clip(a), and what also goes elsewhere (a residual sum, the last layer) stays as it is. Inputs that
    may be negative lose their negative part. The layers get the submodules `input_quantizer` and `gradient_quantizer`,
    without entries in the state dict.

    Raises UserError as `ternarize_` does and for other bits, with the network unchanged.
    """
    method = DoReFa(weight_bits)
    check_bits("activation_bits", activation_bits, also=(_FLOAT,))
    check_bits("gradient_bits", gradient_bits, also=(_FLOAT,))
    names = ternarize_(net, method, exclude=_first_and_last(net) if exclude is None else exclude)
    for layer in map(net.get_submodule, names):
        if activation_bits != _FLOAT:
            layer.input_quantizer = QuantizeActivation(activation_bits)
            layer.register_forward_pre_hook(_quantize_input)
        if gradient_bits != _FLOAT:
            layer.gradient_quantizer = QuantizeGradient(gradient_bits)
            layer.register_forward_hook(_quantize_output_gradient)
    return names


class QuantizeActivation(nn.Module):
    """quantize(clip(x, 0, 1), bits), in x's shape and dtype; the gradient passes where 0 ≤ x ≤ 1."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        check_bits("bits", bits)
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        # 255 levels do not fit bfloat16's 8 bits of precision, so the rounding is done in float32 at least
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        return quantize(exact.clamp(0, 1), self.bits).to(x.dtype)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class QuantizeGradient(nn.Module):
    """x itself, with `quantize_gradient` applied to its gradient in training; inert in evaluation."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        check_bits("bits", bits)
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return cast(Tensor, _GradientFunction.apply(x, self.bits))  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


def quantize_gradient(grad: Tensor, bits: int) -> Tensor:
    """2^bits levels from −m to m, m = max|grad| of each sample [N, ...], rounded at random with the mean kept.

    A sample of zeros stays zero. NaN and infinities do not stay hidden: their sample becomes NaN or infinite.
    """
    if grad.numel() == 0:
        return grad
    exact: Tensor = grad.to(torch.promote_types(grad.dtype, torch.float32))
    top: Tensor = exact.abs().reshape(len(grad), -1).amax(dim=1).reshape(-1, *[1] * (grad.dim() - 1))
    levels = 2**bits - 1
    noise = (torch.rand_like(exact) - 0.5) / levels
    unit = (exact / torch.where(top > 0, top, 1.0) / 2 + 0.5 + noise).clamp(0, 1)
    rounded: Tensor = 2 * top * (torch.round(unit * levels) / levels - 0.5)
    return rounded.to(grad.dtype)


class _GradientFunction(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, bits: int) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.bits = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return quantize_gradient(grad, ctx.bits), None


def _quantize_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return layer.get_submodule("input_quantizer")(inputs[0]), *inputs[1:]


def _quantize_output_gradient(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Any:
    return layer.get_submodule("gradient_quantizer")(output)


def _first_and_last(net: nn.Module) -> list[str]:
    names = [name for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    return [*names[:1], *names[-1:]]
