"""Another group size for each layer: small groups where the network's output needs them, large ones elsewhere."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tritkit.errors import UserError
from tritkit.methods import FGQ
from tritkit.post.images import collect
from tritkit.post.layers import Layer
from tritkit.post.moments import Moments, as_columns, moments_of
from tritkit.post.quantizing import LAYERWISE, Progress, _fold, _Quantizing, _set_norm_
from tritkit.post.steps import Compensate, Regress, Solve
from tritkit.surgery import Select

__all__ = ["BitsPerWeight", "Budget", "Choice", "Multiplications", "choose_group_sizes"]

SIZES = (2, 4, 8, 16, 32, 64)
_SCALE_BITS = 8


@dataclass(frozen=True)
class Choice:
    """What one layer costs and loses with groups of each size.

    weights: how many it has. macs: of one image. size → change: mean squared change of the network's outputs, over
    their variance, when this layer alone is ternary with groups of that size. Measured for the largest size; the others
    follow from the error of the layer's own outputs.
    """

    weights: int
    macs: int
    change: Mapping[int, float]


class Budget(ABC):
    """What all ternary layers together may cost."""

    @abstractmethod
    def cost(self, choice: Choice, size: int) -> float:
        """Of one layer with groups of `size`."""

    @abstractmethod
    def allowed(self, choices: Iterable[Choice]) -> float:
        """For all layers together, in the units of `cost`."""


@dataclass(frozen=True)
class BitsPerWeight(Budget):
    """Bits a weight, codes and scales: a group size of N takes 2 + 8/N."""

    limit: float

    def cost(self, choice: Choice, size: int) -> float:
        return choice.weights * (2 + _SCALE_BITS / size)

    def allowed(self, choices: Iterable[Choice]) -> float:
        return self.limit * sum(choice.weights for choice in choices)


@dataclass(frozen=True)
class Multiplications(Budget):
    """The share of the float layers' multiplications that may remain: a group size of N leaves 1/N."""

    limit: float

    def cost(self, choice: Choice, size: int) -> float:
        return choice.macs / size

    def allowed(self, choices: Iterable[Choice]) -> float:
        return self.limit * sum(choice.macs for choice in choices)


def choose_group_sizes(
    net: nn.Module,
    loader: Iterable[Any],
    budget: Budget,
    *,
    sizes: Sequence[int] = SIZES,
    exclude: Select | None = None,
    images: int = 128,
    progress: Progress | None = None,
) -> dict[str, FGQ]:
    """The method of each ternary layer, for `quantize`: within `budget`, changing the outputs as little as it can.

    net, loader, exclude, progress: as in `quantize`; `images` of the loader's are looked at. sizes: to choose from.
    Every layer begins with the largest size; then, one after another, the layer whose next smaller size gains most for
    its cost gets it, as long as the budget lasts. Deterministic.
    Raises UserError for sizes that are no group sizes, a budget that the largest of them exceeds, and as `quantize`.
    """
    ordered = sorted(set(sizes))
    if not ordered or any(not isinstance(size, int) or size < 1 for size in ordered):
        raise UserError(f"sizes are {list(sizes)}; give whole numbers from 1, such as {list(SIZES)}")
    measuring = _Measuring(net, ordered, collect(loader, images), exclude, progress)
    chosen = _within(measuring.choices(), ordered, budget)
    return {name: FGQ(size) for name, size in chosen.items()}


def _within(choices: Mapping[str, Choice], sizes: Sequence[int], budget: Budget) -> dict[str, int]:
    """A size for each layer."""
    chosen = dict.fromkeys(choices, sizes[-1])
    spent = sum(budget.cost(choice, sizes[-1]) for choice in choices.values())
    allowed = budget.allowed(choices.values())
    if spent > allowed * (1 + 1e-9):
        raise UserError(f"{budget!r} is less than groups of {sizes[-1]} cost, the largest; allow more, or add a size")
    while steps := list(_affordable(choices, chosen, sizes, budget, allowed - spent)):
        _, name, size, cost = max(steps)
        chosen[name], spent = size, spent + cost
    return chosen


def _affordable(
    choices: Mapping[str, Choice], chosen: Mapping[str, int], sizes: Sequence[int], budget: Budget, left: float
) -> Iterable[tuple[float, str, int, float]]:
    """(gain for its cost, layer, size, cost) of every smaller size that the budget still allows."""
    for name, choice in choices.items():
        now = chosen[name]
        for size in (size for size in sizes if size < now):
            cost = budget.cost(choice, size) - budget.cost(choice, now)
            gain = choice.change[now] - choice.change[size]
            if cost <= left and gain > 0:
                yield gain / max(cost, 1e-12), name, size, cost


class _Measuring(_Quantizing):
    """A pass through the float network that tries each layer's sizes and leaves the layer as it was."""

    def __init__(
        self, net: nn.Module, sizes: Sequence[int], images: Tensor, exclude: Select | None, progress: Progress | None
    ) -> None:
        super().__init__(net, FGQ(sizes[-1]), images, exclude, LAYERWISE, progress)
        self._sizes, self._images = sizes, images
        self._errors: dict[str, dict[int, float]] = {}
        self._twins_of: dict[str, Layer] = {}  # at the largest size
        self._macs: dict[str, int] = {}

    def choices(self) -> dict[str, Choice]:
        """For each layer."""
        self._runner.run_to_end()
        self.net.eval()
        found = {}
        with torch.inference_mode():
            wanted = self.net(self._images)
            for layer in self.layers:
                errors, change = self._errors[layer.name], self._change(layer, wanted)
                largest = errors[self._sizes[-1]]
                shares = {size: change * error / largest if largest else 0.0 for size, error in errors.items()}
                found[layer.name] = Choice(layer.module.weight.numel(), self._macs[layer.name], shares)
        return found

    def _fit(self, layer: Layer) -> None:
        if self.progress is not None:
            self.progress(self.layers.index(layer), len(self.layers), layer.name)
        target = self._target(layer)
        moments = moments_of(layer, self._runner.value(layer.node.all_input_nodes[0]), target, self.share)
        self._macs[layer.name] = layer.module.weight.numel() * (target[0].numel() // target.shape[1])
        norm = None if layer.norm is None else (layer.norm[0], copy.deepcopy(layer.norm[1]))
        twin = replace(layer, module=copy.deepcopy(layer.module), norm=norm)
        self._errors[layer.name] = {}
        for size in self._sizes:
            fold = _fold(layer, FGQ(size), moments)
            for step in (Solve(), Compensate()):
                step(fold)
            twin.module.weight.data = fold.ternary().dequantize()
            self._errors[layer.name][size] = _left(moments, as_columns(twin.weight()).double())
        _set_norm_(twin, moments, Regress())
        self._twins_of[layer.name] = twin

    def _change(self, layer: Layer, wanted: Tensor) -> float:
        """Of the outputs, with this layer ternary in the largest groups."""
        twin = self._twins_of[layer.name]
        with _in_place(self.net, layer, twin):
            return float((self.net(self._images) - wanted).square().mean() / wanted.var())


@contextmanager
def _in_place(net: nn.Module, layer: Layer, twin: Layer) -> Iterator[None]:
    """`net` with the modules of `twin` in place of those of `layer`, for a while."""
    _put(net, twin)
    try:
        yield
    finally:
        _put(net, layer)


def _put(net: nn.Module, layer: Layer) -> None:
    net.set_submodule(layer.name, layer.module)
    if layer.norm is not None:
        net.set_submodule(str(layer.norm[0].target), layer.norm[1])


def _left(moments: Moments, q: Tensor) -> float:
    """Summed squared error of the outputs [O] of weights q [O, K] with the best scale and shift of each."""
    along, size = (q * moments.c).sum(dim=1), moments.variance(q)
    explained = torch.where(size > 0, along.square() / size.clamp(min=1e-300), 0.0)
    return float((moments.t_var - explained).clamp(min=0).sum())
