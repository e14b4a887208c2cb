"""Step 1: the smallest weights become zero and stay so while the others train on (Han et al. 2015, 1506.02626)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tritkit.compress.layers import check_weight, on_weight, parametrize_, select, weighted_layers
from tritkit.errors import UserError

__all__ = ["ByDeviation", "BySparsity", "Pruned", "Rule", "masks", "prune_"]


@dataclass(frozen=True)
class ByDeviation:
    """Keep a weight if |w| > quality · σ, σ the standard deviation (over n) of the layer's weights that are not zero.

    The rule of the authors; layers with wide tails keep fewer. quality: above 0; 1 keeps about a third of a normal
    layer.
    """

    quality: float = 1.0

    def __post_init__(self) -> None:
        if not (_is_number(self.quality) and 0 < self.quality < math.inf):
            raise UserError(f"quality must be a number above 0, got {self.quality!r}")

    def keep(self, weight: Tensor) -> Tensor:
        """What stays of a weight: bool, of its shape."""
        alive = weight[weight != 0].double()
        deviation = alive.std(correction=0) if alive.numel() else torch.zeros(())
        return weight.abs() > self.quality * float(deviation)


@dataclass(frozen=True)
class BySparsity:
    """Remove the `sparsity` · n smallest |w| of a layer of n (rounded, the earlier of equals first); one always stays.

    sparsity: 0 ≤ sparsity < 1.
    """

    sparsity: float

    def __post_init__(self) -> None:
        if not (_is_number(self.sparsity) and 0 <= self.sparsity < 1):
            raise UserError(f"sparsity must be in [0, 1), got {self.sparsity!r}")

    def keep(self, weight: Tensor) -> Tensor:
        """What stays of a weight: bool, of its shape."""
        flat = weight.contiguous().flatten()
        removed = min(round(self.sparsity * flat.numel()), flat.numel() - 1)
        kept = torch.ones(flat.numel(), dtype=torch.bool, device=weight.device)
        kept[flat.abs().argsort(stable=True)[:removed]] = False
        return kept.view(weight.shape)


Rule = ByDeviation | BySparsity


class Pruned(nn.Module):
    """The parametrization w · mask. `mask`: bool buffer of the weight's shape.

    Removed weights are zero whatever the optimizer does: the parameter behind them starts at zero, and gets neither
    gradient nor, being zero, weight decay.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)


def prune_(
    net: nn.Module, rule: Rule, include: Collection[str] | None = None, exclude: Collection[str] = ()
) -> list[str]:
    """Remove the weights of Conv2d and Linear layers that `rule` does not keep, in place; the names of the layers.

    include, exclude: names or `fnmatch` patterns; every layer without them, as in the paper. Call it for some layers
    after the other to give each a rule of its own, and again after training to remove more: what is zero stays zero.
    Parameters keep their identity. Raises UserError, with the network unchanged, for a pattern without a layer, a
    weight that is not finite float32 or made otherwise, and a layer that would lose all weights.
    """
    layers = select(net, include, exclude)
    kept = {name: _mask(name, layer, rule) for name, layer in layers.items()}
    for name, layer in layers.items():
        parametrize_(layer, Pruned(kept[name]))
    return list(layers)


def masks(net: nn.Module) -> dict[str, Tensor]:
    """The mask (bool, of the weight's shape) of each pruned layer."""
    found = {name: on_weight(layer, Pruned) for name, layer in weighted_layers(net).items()}
    return {name: pruned.mask for name, pruned in found.items() if pruned is not None}


def _mask(name: str, layer: nn.Module, rule: Rule) -> Tensor:
    weight = check_weight(name, layer, Pruned)
    kept = rule.keep(weight)
    before = on_weight(layer, Pruned)
    if before is not None:
        kept = kept & before.mask
    if not bool(kept.any()):
        raise UserError(f"layer {name!r} would lose all {weight.numel()} weights by {rule}; exclude it or remove fewer")
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
