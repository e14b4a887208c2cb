"""A penalty that makes ternary layers sparser while they train: zeros are what the engine's fastest kernels skip."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from tritkit.surgery import latent_of, ternarizer_of, ternary_layers
from tritkit.train.recipe import Density


def density_penalty(net: nn.Module, settings: Density) -> Tensor:
    """weight · max(0, density − target), density the mean over the ternary layers of their share of non-zero codes.

    Its gradient is that of a line in place of the step at the threshold Δ, a constant: for n weights in one of L layers

        d density / d w = sign(w) / (2Δ · n · L)  where 0 < |w| < 2Δ,  else 0

    so that weights near the threshold are drawn to zero, those that are needed grow out of reach, and nothing is pulled
    once the target is met. Layers count alike, whatever their weights: in a ResNet each has about as many
    multiplications, so that the density is the share of them which remains.
    """
    shares = [_density(layer) for layer in ternary_layers(net).values()]
    return settings.weight * (torch.stack(shares).mean() - settings.target).relu()


def _density(layer: nn.Module) -> Tensor:
    ternarizer, latent = ternarizer_of(layer), latent_of(layer)
    assert ternarizer is not None
    return cast(Tensor, _Share.apply(latent, ternarizer.delta(latent)))  # type: ignore[no-untyped-call]


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(latent: Tensor, delta: Tensor) -> Tensor:
        return torch.gt(latent.abs(), delta).to(latent.dtype).mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        latent, delta = ctx.saved_tensors
        width = 2 * delta
        near = (latent.abs() < width).to(latent.dtype)
        slope = near * latent.sign() / width.clamp(min=torch.finfo(latent.dtype).tiny)
        return grad * slope / latent.numel(), None
