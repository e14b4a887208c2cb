"""What weights each layer of a network has in its integer form."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from tritkit.deploy import graph as g
from tritkit.deploy.lower_weights import int8_weight, ternary_values, ternary_weight
from tritkit.errors import UnsupportedError, UserError
from tritkit.surgery import named_ternary, ternarizer_of, ternary_layers
from tritkit.ternary import Ternary

__all__ = ["Layers"]

_KINDS = ("int8", "float32")


class Layers:
    """What weights each layer has: ternary by its method or its values, int8, or float32 by policy."""

    def __init__(self, net: nn.Module, policies: Mapping[str, str]) -> None:
        for pattern, kind in policies.items():
            if kind not in _KINDS:
                raise UserError(f"policy {pattern!r}: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        self.policies = policies
        self.used: set[str] = set()
        self.ternary: dict[str, tuple[Ternary, str]] = {}
        for name, layer, ternary in named_ternary(net):
            ternarizer = ternarizer_of(layer)
            self.ternary[name] = (ternary, "" if ternarizer is None else ternarizer.method.name)
        self.others = _not_ternary(net)
        self._integers: dict[tuple[str, str], tuple[g.Weight, Any, tuple[float, float]]] = {}

    def policy(self, path: str) -> str | None:
        """The kind that the policies ask for."""
        for pattern, kind in self.policies.items():
            if path == pattern or fnmatchcase(path, pattern):
                self.used.add(pattern)
                return kind
        return None

    def check_used(self) -> None:
        """Raises UserError for a pattern that decided about no layer."""
        unused = [pattern for pattern in self.policies if pattern not in self.used]
        if unused:
            raise UserError(f"policies {unused} match no layer of the network; print(net) shows the names")

    def integers(self, path: str, argument: str, weight: Tensor) -> tuple[g.Weight, Any, tuple[float, float]]:
        """Integers, unit [O] and (Wp, Wn) of a layer's weight; `argument` is the weight's node."""
        key = (path, argument)
        if key not in self._integers:
            self._integers[key] = self._find(path, weight)
        return self._integers[key]

    def _find(self, path: str, weight: Tensor) -> tuple[g.Weight, Any, tuple[float, float]]:
        if path in self.others and self.policy(path) is None:
            raise UnsupportedError(f"layer {path!r}: {self.others[path]}; give it a policy, int8 or float32")
        ternary, method = self.ternary.get(path, (None, ""))
        if ternary is None or not _same(ternary, weight):
            ternary, method = ternary_values(weight), "given"
        if ternary is None or self.policy(path) == "int8":
            return (*int8_weight(weight), (0.0, 0.0))
        scales = (float(ternary.scale_pos.mean()), float(ternary.scale_neg.mean()))
        return (*ternary_weight(ternary, method), scales)


def _same(ternary: Ternary, weight: Tensor) -> bool:
    value = ternary.dequantize().to(weight)
    return value.shape == weight.shape and torch.allclose(value, weight, rtol=1e-5)


def _not_ternary(net: nn.Module) -> dict[str, str]:
    """Layers with a method whose weights are not ternary in the end, and why."""
    found = {}
    for name, layer in ternary_layers(net).items():
        ternarizer = ternarizer_of(layer)
        reason = None if ternarizer is None else ternarizer.method.why_not_ternary
        if reason is not None:
            found[name] = reason
    return found
