"""From a traced network to the integer graph: every chain of ATen nodes becomes one operation of docs/format.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from math import isinf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from tritkit import __version__
from tritkit.deploy import graph as g
from tritkit.deploy.builder import Builder
from tritkit.deploy.lower_layers import Layers
from tritkit.deploy.lower_shapes import (
    PoolTables,
    adaptive_tables,
    arguments,
    clamp_limits,
    conv_geometry,
    max_geometry,
    mean_tables,
    pad_widths,
    pool_tables,
    slice_range,
)
from tritkit.deploy.lower_weights import (
    Affine,
    fold_float,
    fold_integer,
    layer_facts,
)
from tritkit.deploy.ranges import given_quants, missing_error, observe
from tritkit.deploy.trace import Traced, owner, place, shape_of, trace
from tritkit.errors import UnsupportedError, UserError
from tritkit.observers import Observer, Percentile

__all__ = ["lower"]

_SUPPORTED = (
    "convolution, linear, batch norm, relu, clamp, addition of two activations, max and average pools, "
    "flatten/reshape, zero padding, slices, concatenation, dropout"
)


def lower(
    net: nn.Module,
    example: Tensor,
    *,
    calibration: Iterable[Any] | None = None,
    policies: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    input_info: Mapping[str, Any] | None = None,
) -> g.Graph:
    """The integer graph of `net` in evaluation mode; the network itself is not changed.

    example: float32 [N, ...], of which only the shape counts.
    calibration: float32 batches (or tuples that begin with one) for tensors that no quantizer gives a range; they are
        observed by `observer` (default Percentile(99.99)).
    policies: patterns of module paths (fnmatch) → "int8" or "float32", the first that matches decides. Without a
        match, layers with ternary weights are ternary and all others int8.
    input_info: JSON values that the file keeps about the input (mean, std, classes).

    Raises UnsupportedError with the operation and its place where the network has no integer form; UserError for a
    bad example, bad calibration data, tensors without a range, or policies that match nothing.
    """
    traced = trace(net, example)
    layers = Layers(net, policies or {})
    quants = given_quants(traced)
    missing = _Lowering(traced, layers, quants).run().missing
    if missing:
        if calibration is None:
            raise missing_error(missing)
        quants |= observe(traced, missing, calibration, observer or Percentile())
    lowering = _Lowering(traced, layers, quants).run()
    layers.check_used()
    return lowering.graph(input_info or {})


class _Lowering(Builder):
    """Walks the traced graph once. Tensors without a range get a stand-in and are listed in `missing`."""

    def __init__(self, traced: Traced, layers: Layers, quants: Mapping[Node, g.Quant]) -> None:
        super().__init__(traced, quants)
        self.layers = layers
        self.facts: list[dict[str, object]] = []
        self._points = set(traced.points())
        self._pads: dict[Node, tuple[int, int, int, int]] = {}  # pads that the convolutions behind them take in
        self._slices: set[Node] = set()  # slices that the next slice takes in

    def run(self) -> _Lowering:
        """Lower every node that the outputs need."""
        inputs = self.traced.inputs
        if len(inputs) != 1:
            raise UnsupportedError(f"the network must have one input tensor, it has {len(inputs)}")
        live = _live(self.traced)
        for node in self.traced.nodes:
            what = self.traced.kind(node)
            if node not in live or what in ("const", "output") or self.has(node):
                continue
            if what == "other":
                raise UnsupportedError(f"{place(node)}: not an operation of the integer network. It has {_SUPPORTED}")
            self._check_batch(node)
            _HANDLERS[what](self, node)
        return self

    def graph(self, input_info: Mapping[str, Any]) -> g.Graph:
        """The finished graph, checked."""
        name = self.traced.inputs[0].name
        metadata = {
            "tritkit.format": "1",
            "tritkit.version": __version__,
            "tritkit.layers": json.dumps(self.facts),
            "tritkit.input": json.dumps({"name": name, **input_info}),
        }
        return self.finish(metadata)

    def _check_batch(self, node: Node) -> None:
        first = self.traced.inputs[0].meta["val"].shape[0]
        shape = node.meta["val"].shape
        if len(shape) < 1 or str(shape[0]) != str(first):
            raise UnsupportedError(f"{place(node)}: its first axis is not the batch (shape {list(shape)})")

    # ---- inputs and what changes no value

    def _input(self, node: Node) -> None:
        self.values[node.name] = g.Value(node.name, shape_of(node))
        self.set_float(node, node.name, node)

    def _identity(self, node: Node) -> None:
        self.alias(node, node.all_input_nodes[0])

    def _fake_quantize(self, node: Node) -> None:
        self.set_codes(node, self.rescaled(node, self.as_codes(node.all_input_nodes[0]), self.quants[node]))

    # ---- layers

    def _conv(self, node: Node) -> None:
        args = arguments(node)
        weight = self._weight(node)
        if weight.ndim != 4:
            raise UnsupportedError(f"{place(node)}: only 2-d convolutions are supported")
        x = args["input"]
        extra = self._pads.get(x, (0, 0, 0, 0))
        geometry = conv_geometry(node, (weight.shape[2], weight.shape[3]), extra)
        self._layer(node, x.all_input_nodes[0] if x in self._pads else x, g.QConv, g.FloatConv, **vars(geometry))

    def _linear(self, node: Node) -> None:
        x = arguments(node)["input"]
        if len(shape_of(x)) != 1:
            given = ["N", *shape_of(x)]
            raise UnsupportedError(f"{place(node)}: a linear layer must see [N, K], not {given}; flatten it")
        self._layer(node, x, g.QGemm, g.FloatGemm)

    def _weight(self, node: Node) -> Tensor:
        weight = self.traced.constant(arguments(node)["weight"])
        if weight is None or not bool(torch.isfinite(weight).all()):
            raise UserError(f"{place(node)}: its weights have NaN or infinite values")
        return weight

    def _layer(self, node: Node, x: Node, integer: type[g.Node], floating: type[g.Node], **geometry: Any) -> None:
        """A convolution or linear layer with all that its chain folds into it."""
        path = owner(node) or node.name
        chain = self.traced.chain(node)
        weight = self._weight(node)
        affine = self._affine(chain, Affine.bias(len(weight), self.traced.constant(arguments(node)["bias"])))
        name = self.unique(path)
        if self.layers.policy(path) == "float32":
            values, bias = fold_float(name, weight, affine)
            y = self.emit(floating, name, [self.as_float(x)], shape_of(node), weight=values, bias=bias, **geometry)
            self._fact(name, floating.__name__.removeprefix("Float"), values, (0.0, 0.0))
            self._end_float(chain, y)
            return
        integers, unit, scales = self.layers.integers(path, arguments(node)["weight"].name, weight)
        quant = self.quant(chain[-1]) if chain[-1] in self._points else None
        source = self.as_codes(x)
        x_scale, y_scale = self.scale_of(source), None if quant is None else quant.scale
        folded = fold_integer(name, integers, unit, affine, x_scale, y_scale)
        y = self.emit(integer, name, [source], shape_of(node), quant, **vars(folded), **geometry)
        op = g.operation(folded.weight, conv=integer is g.QConv, quantized=quant is not None)
        self._fact(name, op, folded.weight, scales)
        if quant is None:
            self._end_float(chain, y)
        else:
            self._end(chain, y)

    def _fact(self, name: str, op: str, weight: Any, scales: tuple[float, float]) -> None:
        self.facts.append(layer_facts(name, op, weight, scales))

    def _affine(self, chain: list[Node], affine: Affine) -> Affine:
        for node in chain:
            if self.traced.kind(node) == "bn":
                affine = affine.then_norm(*self._norm(node))
        return affine

    def _norm(self, node: Node) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor, float]:
        args = arguments(node)
        names = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (self.traced.constant(args[n]) for n in names)
        if mean is None or var is None or args["training"]:
            raise UnsupportedError(f"{place(node)}: a batch norm without running statistics cannot be folded")
        return weight, bias, mean, var, args["eps"]

    def _bn(self, node: Node) -> None:
        """A batch norm of its own: a 1x1 depthwise convolution with weights ±64."""
        chain = self.traced.chain(node)
        shape = shape_of(node)
        if len(shape) not in (1, 3):
            raise UnsupportedError(f"{place(node)}: a batch norm must see [N, C] or [N, C, H, W]")
        channels = shape[0]
        affine = self._affine(chain, Affine.bias(channels, None))
        name, quant = self.unique(owner(node) or node.name), self.quant(chain[-1])
        weight = g.Int8Weight(np.full((channels, 1, 1, 1), 64, np.int8), "batch norm")
        x = self.reshaped(node, self.as_codes(arguments(node)["input"]), (channels, *shape[1:], 1, 1)[:3])
        unit = np.full(channels, 1 / 64)
        folded = fold_integer(name, weight, unit, affine, self.scale_of(x), quant.scale)
        y = self.emit(g.QConv, name, [x], self.values[x].shape, quant, **vars(folded), group=channels)
        self._fact(name, "QLinearConv", folded.weight, (0.0, 0.0))
        self._end(chain, self.reshaped(node, y, shape))

    # ---- the end of a chain

    def _end(self, chain: list[Node], y: str) -> None:
        """Activation of the chain, then y stands for all its nodes."""
        end = chain[-1]
        if len(chain) > 1 and self.traced.kind(end) in ("relu", "relu6"):
            y = self._clipped(end, y)
        for node in chain:
            self.set_codes(node, y)

    def _end_float(self, chain: list[Node], y: str) -> None:
        end = chain[-1]
        if self.traced.kind(end) in ("relu", "relu6"):
            low, high = clamp_limits(end)
            y = self.emit(g.FloatClip, self.name_of(end), [y], shape_of(end), low=low, high=high)
        for node in chain:
            self.set_float(node, y, end)

    def _clipped(self, node: Node, x: str) -> str:
        """Limits of a relu or clamp on codes; nothing to do where saturation does it."""
        quant = self.quant_of(x)
        low, high = clamp_limits(node)
        lowest = 0 if isinf(low) else _code(quant, low)
        highest = 255 if isinf(high) else _code(quant, high)
        if (lowest, highest) == (0, 255):
            return x
        shape = self.values[x].shape
        return self.emit(g.Clip, self.name_of(node), [x], shape, quant, low=lowest, high=max(lowest, highest))

    def _activation(self, node: Node) -> None:
        self.set_codes(node, self._clipped(node, self.as_codes(node.all_input_nodes[0])))

    # ---- additions and pools

    def _add(self, node: Node) -> None:
        chain = self.traced.chain(node)
        a, b = (self.as_codes(x) for x in node.args[:2] if isinstance(x, Node))
        if self.values[a].shape != self.values[b].shape:
            shapes = f"{self.values[a].shape} and {self.values[b].shape}"
            raise UnsupportedError(f"{place(node)}: adds different shapes, {shapes}")
        self._end(chain, self.emit(g.QAdd, self.name_of(node), [a, b], shape_of(node), self.quant(chain[-1])))

    def _average(self, node: Node) -> None:
        chain = self.traced.chain(node)
        x = self.as_codes(node.all_input_nodes[0])
        shape, result = self.values[x].shape, shape_of(node)
        if len(shape) != 3:
            raise UnsupportedError(f"{place(node)}: an average pool must see [N, C, H, W]")
        tables = _tables(node, shape[1:], result[1:])
        out = (shape[0], *tables.count.shape)
        y = self.emit(g.QAveragePool, self.name_of(node), [x], out, self.quant(chain[-1]), **vars(tables))
        self._end(chain, self.reshaped(node, y, result))

    def _max(self, node: Node) -> None:
        x = self.as_codes(node.all_input_nodes[0])
        shape, result = self.values[x].shape, shape_of(node)
        if len(shape) != 3:
            raise UnsupportedError(f"{place(node)}: a max pool must see [N, C, H, W]")
        kernel, strides, pads, dilations = max_geometry(node, shape[1:], result[1:])
        y = self.emit(
            g.MaxPool, self.name_of(node), [x], result, self.quant_of(x),
            kernel=kernel, strides=strides, pads=pads, dilations=dilations,
        )  # fmt: skip
        self.set_codes(node, y)

    # ---- moving codes about

    def _reshape(self, node: Node) -> None:
        self.set_codes(node, self.reshaped(node, self.as_codes(node.all_input_nodes[0]), shape_of(node)))

    def _pad(self, node: Node) -> None:
        x = node.all_input_nodes[0]
        before, after = pad_widths(node, 1 + len(shape_of(x)))
        consumers = self.traced.consumers(node)
        if len(before) == 3 and not before[0] and not after[0] and all(_pads_itself(c, node) for c in consumers):
            self._pads[node] = (before[1], before[2], after[1], after[2])
            self.defer(node)
            return
        source = self.as_codes(x)
        y = self.emit(
            g.Pad, self.name_of(node), [source], shape_of(node), self.quant_of(source), before=before, after=after
        )
        self.set_codes(node, y)

    def _slice(self, node: Node) -> None:
        consumers = self.traced.consumers(node)
        if consumers == list(node.users) and [self.traced.kind(user) for user in consumers] == ["slice"]:
            self._slices.add(node)
            self.defer(node)
            return
        run = [node]
        while run[0].all_input_nodes[0] in self._slices:
            run.insert(0, run[0].all_input_nodes[0])
        x = self.as_codes(run[0].all_input_nodes[0])
        shape = self.values[x].shape
        ranges = [range(n) for n in shape]
        for part in run:
            axis, cut = slice_range(part, 1 + len(shape))
            if axis > 0:
                ranges[axis - 1] = ranges[axis - 1][cut]
        if all(len(r) == n for r, n in zip(ranges, shape, strict=True)):
            self.set_codes(node, x)
            return
        if not all(ranges):
            raise UnsupportedError(f"{place(node)}: nothing is left of an axis")
        starts, stops = tuple(r[0] for r in ranges), tuple(r[-1] + 1 for r in ranges)
        steps = tuple(r.step for r in ranges)
        y = self.emit(
            g.Slice, self.name_of(node), [x], shape_of(node), self.quant_of(x), starts=starts, stops=stops, steps=steps
        )
        self.set_codes(node, y)

    def _concat(self, node: Node) -> None:
        args = arguments(node)
        if any(self.traced.kind(x) == "const" for x in args["tensors"]):
            raise UnsupportedError(f"{place(node)}: joins a constant; to append zeros use torch.nn.functional.pad")
        xs = [self.as_codes(x) for x in args["tensors"]]
        axis = args["dim"] % (1 + len(self.values[xs[0]].shape))
        if axis == 0:
            raise UnsupportedError(f"{place(node)}: joins along the batch")
        quant = self.quant(node) if node in self._points else self.quant_of(xs[0])
        xs = [self.rescaled(node, x, quant) for x in xs]
        self.set_codes(node, self.emit(g.Concat, self.name_of(node), xs, shape_of(node), quant, axis=axis))


_HANDLERS: dict[str, Callable[[_Lowering, Node], None]] = {
    "input": _Lowering._input,
    "identity": _Lowering._identity,
    "fake_quantize": _Lowering._fake_quantize,
    "conv": _Lowering._conv,
    "linear": _Lowering._linear,
    "bn": _Lowering._bn,
    "relu": _Lowering._activation,
    "relu6": _Lowering._activation,
    "add": _Lowering._add,
    "avgpool": _Lowering._average,
    "maxpool": _Lowering._max,
    "reshape": _Lowering._reshape,
    "pad": _Lowering._pad,
    "slice": _Lowering._slice,
    "concat": _Lowering._concat,
}


def _live(traced: Traced) -> set[Node]:
    """The nodes that the outputs depend on, and the inputs."""
    found: set[Node] = set(traced.inputs)
    todo = list(traced.outputs)
    while todo:
        node = todo.pop()
        if node not in found or node.op == "placeholder":
            found.add(node)
            todo += [x for x in node.all_input_nodes if x not in found]
    return found


def _tables(node: Node, size: tuple[int, ...], result: tuple[int, ...]) -> PoolTables:
    name = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    if name == "mean":
        return mean_tables(size)
    return adaptive_tables(size, result) if name.startswith("adaptive") else pool_tables(node, size, result)


def _code(quant: g.Quant, real: float) -> int:
    """The code of a real number by the rule of QuantizeLinear."""
    code = np.rint(np.float32(real) / np.float32(quant.scale)) + np.float32(quant.zero_point)
    return int(np.clip(code, 0, 255))


def _pads_itself(node: Node, x: Node) -> bool:
    """Whether the node is a convolution of x, which can take in the pads."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name == "aten::conv2d" and node.args[0] is x
