"""`quantize`: a trained float network in, a ternary one with 8-bit activations out, from some images without labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from tritkit.activations import FakeQuantize, freeze_, quantize_activations
from tritkit.deploy.lower_weights import int8_values
from tritkit.errors import UserError
from tritkit.methods import FGQ, Method
from tritkit.observers import Observer, Percentile, Range
from tritkit.post.curvature import Curvature, curvatures
from tritkit.post.groups import Layout
from tritkit.post.images import check_fit, collect
from tritkit.post.layers import Layer, find_layers
from tritkit.post.moments import Moments, Share, as_columns, moments_of
from tritkit.post.steps import Compensate, Descend, DescendLogits, Fold, NormStep, Regress, Solve, WeightStep
from tritkit.post.walk import Runner
from tritkit.processes import ALONE, Processes
from tritkit.surgery import Select, ternarize_

__all__ = ["BETTER", "FAITHFUL", "LAYERWISE", "UNIT", "Faithful", "Progress", "Steps", "quantize"]

Progress = Callable[[int, int, str], None]
"""Called with (layers done, layers in all, name of the layer that comes)."""

_RIDGE = 1e-2  # of the mean of H's diagonal; beside it K / patches, as few patches determine few weights
UNIT = 256
"""Images a batch that an observer sees; whole ones of them are what processes share."""


@dataclass(frozen=True)
class Faithful:
    """FGQ as published: the closest weights group by group, batch norm's mean and variance measured again, 8-bit
    activations whose ranges `observer` chooses (`PowerOfTwo()` for the paper's).
    """

    observer: Observer = field(default_factory=Percentile)


@dataclass(frozen=True)
class Steps:
    """Layers that keep their outputs. weights: steps in turn, for each layer; norm: then, behind it.

    observer: chooses the ranges of the activations.
    """

    weights: tuple[WeightStep, ...]
    norm: NormStep
    observer: Observer = field(default_factory=Percentile)


FAITHFUL = Faithful()
LAYERWISE = Steps((Solve(), Compensate(), Descend()), Regress())
"""Codes, scales and shifts that keep each layer's outputs on the calibration images. What training begins with."""
BETTER = Steps((*LAYERWISE.weights, DescendLogits()), Regress())
"""The default: then codes and scales that keep the network's outputs, as far as they follow from the layer's."""


def quantize(
    net: nn.Module,
    method: Method | Mapping[str, Method],
    loader: Iterable[Any],
    *,
    exclude: Select | None = None,
    steps: Steps | Faithful = BETTER,
    images: int = 1024,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> GraphModule:
    """A ternary copy of the float network `net`, ready for `export`; `net` itself stays as it is.

    method: FGQ; its groups and scales are used. A mapping gives each ternary layer, by name, its own.
    loader: batches of normalised images without labels (or tuples that begin with them), of which the first `images`
        are used.
    exclude: layers that become int8 instead, as in `ternarize_`; None: the first and the last.
    progress: called before each layer.
    processes: those that do the same with other images, in the order of the images; all end with the network that one
        would make of all images, to the order of floating-point additions, if all but the last have a multiple of 256.

    The copy is a traced network as `quantize_activations` gives it: its layers are parametrized by `method`, its
    activations quantized with fixed ranges. Deterministic.

    Raises UserError for bad images and what `find_layers` says; UnsupportedError for a network that cannot be traced
    or has a layer to make ternary that runs twice, shares its weight, or is a convolution in groups.
    """
    for given in method.values() if isinstance(method, Mapping) else [method]:
        if not isinstance(given, FGQ):
            raise UserError(f"post-training quantization takes FGQ (any group size), got {given!r}")
    with torch.inference_mode(False):  # gradients are needed, and what is made should train
        batch = collect(loader, images)
        return _Quantizing(net, method, batch, exclude, steps, progress, processes).run()


class _Quantizing:
    """One pass through the network and its float original."""

    def __init__(
        self,
        net: nn.Module,
        method: Method | Mapping[str, Method],
        images: Tensor,
        exclude: Select | None,
        steps: Steps | Faithful,
        progress: Progress | None,
        processes: Processes = ALONE,
    ) -> None:
        self.share = Share.of(images, processes)
        original = copy.deepcopy(net).eval()
        check_fit(original, images)
        floating = quantize_activations(original, steps.observer)
        self.net = copy.deepcopy(floating)
        self.layers, self.others = find_layers(self.net, exclude)
        self.methods = _methods(method, [layer.name for layer in self.layers])
        self.steps, self.progress = steps, progress
        self._by_node = {layer.node: layer for layer in self.layers}
        self._norms = {layer.norm[0]: layer.norm[1] for layer in self.layers if layer.norm is not None}
        twins = {node.name: node for node in floating.graph.nodes}
        wanted = [twins[n.name] for layer in self.layers for n in (layer.end, layer.add) if n is not None]
        self._twins = twins
        self._float = Runner(floating, images, keep=wanted)  # runs as far as targets are asked for
        self._runner = Runner(self.net, images, self._prepare)
        self._modules = dict(self.net.named_modules())
        self._curvatures: dict[str, Curvature] = {}
        if isinstance(steps, Steps) and any(isinstance(step, DescendLogits) for step in steps.weights):
            theirs = find_layers(floating, lambda name, _: name not in self.methods)[0]
            self._curvatures = curvatures(floating, theirs, images, self.share)

    def run(self) -> GraphModule:
        for layer in self.others:
            _to_int8_(layer)
        self._runner.run_to_end()
        for layer in self.layers:
            ternarize_(self.net, self.methods[layer.name], include=[layer.name])
        freeze_(self.net)
        return self.net

    def _prepare(self, node: Node) -> None:
        if node in self._by_node:
            self._fit(self._by_node[node])
        elif node in self._norms and isinstance(self.steps, Faithful):
            _measure_(self._norms[node], self._runner.value(node.all_input_nodes[0]), self.share.processes)
        elif node.op == "call_module":
            module = self._modules[str(node.target)]
            if isinstance(module, FakeQuantize):
                _set_range(module, self._runner.value(node.all_input_nodes[0]), self.share.processes)

    def _fit(self, layer: Layer) -> None:
        if self.progress is not None:
            self.progress(self.layers.index(layer), len(self.layers), layer.name)
        method = self.methods[layer.name]
        if isinstance(self.steps, Faithful):
            layer.module.weight.data = method.project(layer.weight()).snap().dequantize()
            return
        x = self._runner.value(layer.node.all_input_nodes[0])
        moments = moments_of(layer, x, self._target(layer), self.share)
        fold = _fold(layer, method, moments, self._curvatures.get(layer.name))
        for step in self.steps.weights:
            step(fold)
        layer.module.weight.data = fold.ternary().dequantize()
        _set_norm_(layer, moments, self.steps.norm)

    def _target(self, layer: Layer) -> Tensor:
        """What the layer should give behind its batch norm: the float network's value there; at the end of a residual
        branch, what is missing to the float network's sum, so that errors do not add up along the shortcuts.
        """
        target: Tensor = self._float.take(self._twins[layer.end.name])
        if layer.add is None:
            return target
        total: Tensor = self._float.take(self._twins[layer.add.name])
        ours = {layer.end, *layer.end.users}
        others = [n for n in layer.add.all_input_nodes if n not in ours]
        if len(others) != 1 or self._runner.waits_for(others[0], self._by_node):
            return target
        rest: Tensor = self._runner.value(others[0])
        return total - rest


def _methods(method: Method | Mapping[str, Method], names: list[str]) -> dict[str, FGQ]:
    """The method of each of the layers `names`."""
    each = method if isinstance(method, Mapping) else dict.fromkeys(names, method)
    if set(each) != set(names):
        missing, unknown = sorted(set(names) - set(each)), sorted(set(each) - set(names))
        raise UserError(f"methods by layer: {missing} have none, and {unknown} are no ternary layers of this network")
    return {name: chosen for name, chosen in each.items() if isinstance(chosen, FGQ)}


def _fold(layer: Layer, method: FGQ, moments: Moments, curvature: Curvature | None = None) -> Fold:
    """The float weights, times their batch norm's factors as outputs are wanted behind it, and what was measured."""
    start = as_columns(layer.weight()).double()
    factor = _norm_factor(layer)
    if factor is not None:
        start = start * factor[:, None]
    layout = Layout.of(method, layer.module.weight.shape)
    order = layout.order
    start, h = start[:, order], moments.h[order][:, order]
    ridge = (_RIDGE + len(h) / moments.count) * float(h.diagonal().mean()) or 1.0
    h = h + ridge * torch.eye(len(h), dtype=h.dtype)
    if curvature is not None:
        curvature = replace(curvature, inputs=curvature.inputs[order][:, order])
    return Fold(layout, start, h, moments.c[:, order] + ridge * start, ridge, curvature)


def _norm_factor(layer: Layer) -> Tensor | None:
    """What the batch norm multiplies each output by, float64 [O]."""
    if layer.norm is None:
        return None
    norm = layer.norm[1]
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    return factor if norm.weight is None else factor * norm.weight.detach().double()


@torch.no_grad()
def _set_norm_(layer: Layer, moments: Moments, step: NormStep) -> None:
    """Put the scale and shift of each channel into the batch norm, or into the layer where there is none."""
    module = layer.module
    q = as_columns(layer.weight()).double()
    scaling = step(q, moments)
    if layer.norm is None:
        module.weight.mul_(scaling.factor.reshape(-1, *[1] * (module.weight.dim() - 1)))
        module.bias = nn.Parameter(scaling.shift.float())
        return
    norm = layer.norm[1]
    mean, variance = q @ moments.x_mean, moments.variance(q)
    if module.bias is not None:
        mean = mean + module.bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.affine = True
    norm.weight = nn.Parameter((scaling.factor * (variance + norm.eps).sqrt()).float())
    norm.bias = nn.Parameter((scaling.shift + scaling.factor * (q @ moments.x_mean)).float())


@torch.no_grad()
def _measure_(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, processes: Processes) -> None:
    """Take the mean and variance of each channel of all processes' x [N, C, ...] as the batch norm's."""
    channels = x.transpose(0, 1).flatten(1)
    count = channels.shape[1]
    variance, mean = (value.double() for value in torch.var_mean(channels, dim=1, correction=0))
    counts = int(processes.total(torch.tensor(count)))
    centre = processes.total(mean * count) / counts
    spread = processes.total((variance + (mean - centre).square()) * count) / counts
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(centre)
    norm.running_var.copy_(spread)


def _set_range(quantizer: FakeQuantize, x: Tensor, processes: Processes) -> None:
    seen = Range(quantizer.observer)
    for start in range(0, len(x), UNIT):
        seen.update(x[start : start + UNIT])
    seen.pool(processes)
    quantizer.set_range(seen.low, seen.high)


@torch.no_grad()
def _to_int8_(layer: Layer) -> None:
    """Give the layer the values that its int8 form will have, so that what follows is fitted to them."""
    layer.module.weight.copy_(int8_values(layer.module.weight))
