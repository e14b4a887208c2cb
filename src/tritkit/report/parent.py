"""The float parent in torch: its logits, and those with one layer ternary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from tritkit.errors import UserError
from tritkit.methods import FGQ
from tritkit.report.accuracy import Floats, Pixels, batch_size

_WHOLE = 1 << 20  # a group of all input channels: one scale an output channel


def weighted_layers(net: nn.Module) -> list[str]:
    """Names of its convolutions and linear layers."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


class TorchParent:
    """A float network in evaluation mode. names: layers that become ternary one at a time. normalise: makes its inputs,
    float32 [N, C, H, W], of uint8 images.
    """

    def __init__(self, net: nn.Module, names: Sequence[str], normalise: Callable[[Pixels], Floats]) -> None:
        self.net, self.normalise = net.eval(), normalise
        modules = dict(net.named_modules())
        self.layers = [(name, modules[name]) for name in names if hasattr(modules.get(name), "weight")]

    @torch.no_grad()
    def logits(self, images: Floats) -> Floats:
        """[N, C, H, W] → [N, K]. UserError for images of a size that the network cannot take."""
        given, batch = torch.from_numpy(images), batch_size(images)
        try:
            return np.concatenate([self.net(given[i : i + batch]).numpy() for i in range(0, len(given), batch)])
        except RuntimeError as error:
            why = f"the float network does not run images of {list(images.shape[1:])}"
            raise UserError(f"{why} ({' '.join(str(error).split())}); give this one's parent") from error

    @torch.no_grad()
    def one_layer_ternary(self, images: Floats) -> Iterator[tuple[str, Floats]]:
        """The nearest ternary weights with one scale an output channel, without any training; the layer gets its
        float weights back."""
        nearest = FGQ(_WHOLE, "kernels")
        for name, layer in self.layers:
            weight = layer.weight
            if not isinstance(weight, torch.Tensor) or weight.dim() not in (2, 4):
                continue
            kept = weight.clone()
            try:
                weight.copy_(nearest.project(kept).dequantize())
                yield name, self.logits(images)
            finally:
                weight.copy_(kept)
