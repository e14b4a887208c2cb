"""Which layers of a network a step takes, and what stands on their weights."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tritkit.errors import UserError
from tritkit.surgery import unparametrize_

_Kind = TypeVar("_Kind", bound=nn.Module)


def weighted_layers(net: nn.Module) -> dict[str, nn.Module]:
    """The Conv2d and Linear layers by name, in the order of `named_modules`."""
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}


def select(net: nn.Module, include: Collection[str] | None, exclude: Collection[str]) -> dict[str, nn.Module]:
    """The layers that `include` (names or `fnmatch` patterns; None: all) takes and `exclude` leaves.

    UserError for a pattern that matches no layer, and when nothing is left.
    """
    layers = weighted_layers(net)
    taken = set(layers) if include is None else _matches("include", include, layers)
    taken -= _matches("exclude", exclude, layers)
    if not taken:
        raise UserError(f"no layer is left of the {len(layers)} Conv2d and Linear layers; take more or exclude fewer")
    return {name: layer for name, layer in layers.items() if name in taken}


def on_weight(layer: nn.Module, kind: type[_Kind]) -> _Kind | None:
    """The parametrization of that kind on the layer's weight, if it is the only one."""
    found = _parametrizations(layer)
    return found[0] if len(found) == 1 and isinstance(found[0], kind) else None


def check_weight(name: str, layer: nn.Module, *allowed: type[nn.Module]) -> Tensor:
    """The weight the layer computes with; float32, not empty, finite. UserError if it is not, or if another
    parametrization than those `allowed` stands on it.
    """
    found = _parametrizations(layer)
    if len(found) and not any(on_weight(layer, kind) for kind in allowed):
        kinds = ", ".join(type(p).__name__ for p in found)
        raise UserError(f"the weight of layer {name!r} is made by {kinds} already; strip it first or exclude the layer")
    with torch.no_grad():
        weight = layer.weight
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or weight.numel() == 0:
        raise UserError(f"the weight of layer {name!r} must be a float32 tensor that is not empty, got {_what(weight)}")
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise UserError(f"layer {name!r}: {bad} of {weight.numel()} weights are NaN or infinite")
    return weight.detach()


def parametrize_(layer: nn.Module, made_by: nn.Module) -> None:
    """Put `made_by` on the weight, in place of what stands there; gradients of the old weight are dropped."""
    plain_(layer)
    layer.weight.grad = None
    parametrize.register_parametrization(layer, "weight", made_by)


def plain_(layer: nn.Module) -> None:
    """Make the weight a plain parameter with the values the layer computes with."""
    if len(_parametrizations(layer)):
        unparametrize_(layer, leave_parametrized=True)
        layer.weight.grad = None


def _parametrizations(layer: nn.Module) -> Any:
    """The ParametrizationList of the weight, or an empty tuple."""
    table = getattr(layer, "parametrizations", None)
    return table["weight"] if isinstance(table, nn.ModuleDict) and "weight" in table else ()


def _matches(role: str, patterns: Collection[str], layers: Collection[str]) -> set[str]:
    if isinstance(patterns, str):
        raise UserError(f"{role} must be a list of layer names or patterns, got the string {patterns!r}")
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in layers if name == pattern or fnmatchcase(name, pattern)}
        if not hits:
            raise UserError(f"{role}: {pattern!r} matches no Conv2d or Linear layer; there are {', '.join(layers)}")
        found |= hits
    return found


def _what(weight: Any) -> str:
    return f"{weight.dtype} {list(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
