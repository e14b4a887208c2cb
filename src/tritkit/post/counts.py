"""What ternary weights save, counted exactly: multiplications by the paper's rule, additions, bits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods import FGQ
from tritkit.surgery import named_ternary, ternarizer_of
from tritkit.ternary import Ternary

__all__ = ["Counts", "LayerCount", "count"]

_SCALE_BITS = 8  # a group's scale in the file: an integer of the codebook
_INT8_BITS = 8


@dataclass(frozen=True)
class LayerCount:
    """One layer, for one image.

    macs: multiplications and additions of the float layer. multiplications: what the paper's rule leaves of them, one
    for each group of weights and position (all of them in an int8 layer). additions: one for each weight that is not
    zero and position. bits: of all its weights, 2 a code and 8 a group's scale, or 8 a weight.
    """

    name: str
    kind: str
    weights: int
    group_size: int | None
    density: float
    macs: int
    multiplications: int
    additions: int
    bits: int

    @property
    def removed(self) -> float:
        """Share of multiplications that are gone."""
        return 1 - self.multiplications / self.macs


@dataclass(frozen=True)
class Counts:
    """layers: in the order they run."""

    layers: tuple[LayerCount, ...]

    def facts(self) -> dict[str, Any]:
        """Plain values: `layers`, `ternary` (the totals of the ternary layers), `all` (first layer and classifier
        counted too).
        """
        ternary = [row for row in self.layers if row.kind == "ternary"]
        rows = [{**asdict(row), "removed": row.removed} for row in self.layers]
        return {"layers": rows, "ternary": _total(ternary), "all": _total(self.layers)}


def _total(rows: tuple[LayerCount, ...] | list[LayerCount]) -> dict[str, Any]:
    names = ("weights", "macs", "multiplications", "additions", "bits")
    total: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in names}
    total["removed"] = 1 - total["multiplications"] / total["macs"]
    total["bits_a_weight"] = total["bits"] / total["weights"]
    return total


@torch.no_grad()
def count(net: nn.Module, example: Tensor) -> Counts:
    """Of a network with FGQ layers, as `quantize` gives it. example: one input [N, ...]; only its shape counts."""
    ternary = {name: value for name, _, value in named_ternary(net)}
    positions: dict[str, int] = {}
    layers = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(_recorder(name, positions)) for name, layer in layers.items()]
    try:
        net.eval()(example[:1])
    finally:
        for hook in hooks:
            hook.remove()
    rows = tuple(_row(name, layers[name], ternary.get(name), at) for name, at in positions.items())
    if not rows:
        raise UserError("the network has no Conv2d or Linear layer to count")
    return Counts(rows)


def _recorder(name: str, positions: dict[str, int]) -> Any:
    def record(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        channels = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
        positions[name] = positions.get(name, 0) + output[0].numel() // channels

    return record


def _row(name: str, layer: nn.Module, ternary: Ternary | None, positions: int) -> LayerCount:
    weight = layer.get_parameter("weight") if ternary is None else ternary.codes
    macs = weight.numel() * positions
    if ternary is None:
        return LayerCount(name, "int8", weight.numel(), None, 1.0, macs, macs, macs, weight.numel() * _INT8_BITS)
    ternarizer = ternarizer_of(layer)
    method = None if ternarizer is None else ternarizer.method
    if not isinstance(method, FGQ):
        raise UserError(f"layer {name!r} has the method {method!r}; counts are those of FGQ")
    each = method.multiplications(tuple(weight.shape))
    additions = int(torch.count_nonzero(ternary.codes)) * positions
    bits = 2 * weight.numel() + _SCALE_BITS * _scales(method, tuple(weight.shape))
    return LayerCount(
        name, "ternary", weight.numel(), method.group_size, ternary.density, macs, each * positions, additions, bits
    )


def _scales(method: FGQ, shape: tuple[int, ...]) -> int:
    """How many scales the file needs: a whole kernel's group has one, however its codebook repeats it."""
    groups = -(-shape[1] // min(method.group_size, shape[1]))
    area = 1 if method.group == "kernels" else prod(shape[2:])
    scales: int = shape[0] * groups * area * (1 if method.scales == "shared" else 2)
    return scales
