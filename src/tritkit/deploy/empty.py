"""Removing channels that do nothing (TTQ, section 6.2), exactly: the integers at the outputs stay as they are.

    folded = fold_empty(from_onnx("net.onnx"))
    to_onnx(folded.graph)

A channel that is the same for every image goes into the bias of the layers that read it, where that adds the same at
every position: a constant that differs from the zero point does not behind a zero-padded convolution, and stays.
A channel that nobody reads is cut from the layer that makes it and from everything on its way. One removal may make
another possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.deploy import graph as g
from tritkit.deploy.fixed import Fixed, Mask, fixed_codes
from tritkit.deploy.reference import _convolve

__all__ = ["Folded", "fold_empty"]

Needs = dict[str, Mask]
_SAME = (g.QAdd, g.QAveragePool, g.QRescale, g.MaxPool, g.Clip)  # channel c of the output is channel c of the inputs


@dataclass(frozen=True)
class Folded:
    """graph: what remains. removed: how many output channels each layer lost. weights: before and after."""

    graph: g.Graph
    removed: dict[str, int]
    weights: tuple[int, int]


def fold_empty(graph: g.Graph) -> Folded:
    """`graph` without channels that do nothing. Its outputs are the same integers for every input."""
    before, start = _weights(graph), {node.name: _outputs(node) for node in graph.layers()}
    while True:
        smaller = _cut(_constants_folded(graph))
        if _weights(smaller) == _weights(graph):
            break
        graph = smaller
    removed = {node.name: start[node.name] - _outputs(node) for node in smaller.layers()}
    smaller.validate()
    return Folded(smaller, {name: count for name, count in removed.items() if count}, (before, _weights(smaller)))


def _outputs(node: Any) -> int:
    return int(node.weight.shape[0])


def _weights(graph: g.Graph) -> int:
    return sum(int(np.prod(node.weight.shape)) for node in graph.layers())


# ---- constants into biases


def _constants_folded(graph: g.Graph) -> g.Graph:
    fixed = fixed_codes(graph)
    nodes = (_folded(graph, n, fixed[n.inputs[0]]) if isinstance(n, (g.QConv, g.QGemm)) else n for n in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def _folded(graph: g.Graph, node: g.QConv | g.QGemm, x: Fixed) -> g.Node:
    """The layer with its fixed input channels in the bias."""
    if isinstance(node, g.QConv) and node.group > 1:
        return node
    integers: NDArray[Any] = node.weight.integers().astype(np.float64)
    bias, gone = node.bias.astype(np.int64), []
    for channel in np.flatnonzero(x.known.reshape(len(x.known), -1).all(axis=1)):
        w = integers[:, channel : channel + 1]
        if not w.any():
            continue
        centred = x.codes[None, channel : channel + 1].astype(np.float64) - graph.quant(node.inputs[0]).zero_point
        sums = (_convolve(centred, w, node) if isinstance(node, g.QConv) else centred @ w.T).reshape(len(w), -1)
        more = bias + sums[:, 0].astype(np.int64)
        if (sums == sums[:, :1]).all() and np.abs(more).max() <= g.BIAS_LIMIT:
            bias = more
            gone.append(int(channel))
    return _without_weights(node, gone, bias) if gone else node


def _without_weights(node: g.QConv | g.QGemm, channels: list[int], bias: NDArray[Any]) -> g.Node:
    kept = np.ones(node.weight.shape[:2], np.int8).reshape(*node.weight.shape[:2], *[1] * (len(node.weight.shape) - 2))
    kept[:, channels] = 0
    made: g.Weight
    if isinstance(node.weight, g.TernaryWeight):
        made = replace(node.weight, codes=node.weight.codes * kept)
    else:
        made = replace(node.weight, values=node.weight.values * kept)
    return replace(node, weight=made, bias=bias.astype(np.int32))


# ---- channels that nobody reads


def _cut(graph: g.Graph) -> g.Graph:
    """The graph without the channels that are not needed."""
    needs = _needs(graph)
    values = {name: _smaller(value, needs[name]) for name, value in graph.values.items()}
    return replace(graph, values=values, nodes=tuple(_sliced(node, graph, needs) for node in graph.nodes))


def _smaller(value: g.Value, need: Mask) -> g.Value:
    return replace(value, shape=(int(need.sum()), *value.shape[1:]))


def _needs(graph: g.Graph) -> Needs:
    """For every tensor, which channels must stay. Grows until it fits all nodes."""
    needs: Needs = {name: np.zeros(value.shape[:1], bool) for name, value in graph.values.items()}
    for name in (*graph.inputs, *graph.outputs):
        needs[name][:] = True
    changed = True
    while changed:
        before = sum(int(need.sum()) for need in needs.values())
        for node in reversed(graph.nodes):
            _spread(node, graph, needs)
        for need in needs.values():
            need[0] |= not need.any()  # a tensor has a channel
        changed = sum(int(need.sum()) for need in needs.values()) != before
    return needs


def _spread(node: g.Node, graph: g.Graph, needs: Needs) -> None:
    """What the node's output needs, its inputs do; where channels are tied, the other way round too."""
    y = needs[node.output]
    if isinstance(node, (g.QConv, g.QGemm)) and getattr(node, "group", 1) == 1:
        needs[node.inputs[0]] |= _read(node, y)
        _keep_groups(node.weight, needs[node.inputs[0]])
    elif isinstance(node, _SAME) or (isinstance(node, g.Slice) and _keeps_channels(node, graph)):
        for name in node.inputs:
            y |= needs[name]
        for name in node.inputs:
            needs[name] |= y
    elif isinstance(node, g.Pad):
        _tie(needs[node.inputs[0]], y[node.before[0] : len(y) - node.after[0]])
    elif isinstance(node, g.Concat) and node.axis == 1:
        _spread_concat(node, needs)
    elif isinstance(node, g.Reshape) and _is_flat(node, graph):
        x = needs[node.inputs[0]]
        _tie(x, y.reshape(len(x), -1))
    else:
        for name in (*node.inputs, node.output):
            needs[name][:] = True


def _tie(x: Mask, y: Mask) -> None:
    """Channel c of x and all of row c of y stay or go together."""
    x |= y if y.ndim == 1 else y.any(axis=1)
    y |= x if y.ndim == 1 else x[:, None]


def _spread_concat(node: g.Concat, needs: Needs) -> None:
    at = 0
    for name in node.inputs:
        x = needs[name]
        _tie(x, needs[node.output][at : at + len(x)])
        at += len(x)


def _read(node: g.QConv | g.QGemm, outputs: Mask) -> Mask:
    """The input channels that these outputs have weights for."""
    w = node.weight.integers()[outputs] != 0
    return np.asarray(w.any(axis=(0, *range(2, w.ndim))))


def _keep_groups(weight: g.Weight, channels: Mask) -> None:
    """Of input channels that share a scale all stay, or none."""
    if not isinstance(weight, g.TernaryWeight) or weight.group_size is None:
        return
    size = weight.group_size
    for start in range(0, len(channels), size):
        channels[start : start + size] |= channels[start : start + size].any()


def _keeps_channels(node: g.Slice, graph: g.Graph) -> bool:
    return (node.starts[0], node.stops[0], node.steps[0]) == (0, graph.values[node.inputs[0]].shape[0], 1)


def _is_flat(node: g.Reshape, graph: g.Graph) -> bool:
    """[C, H, W] to [C·H·W], or between shapes that differ in sides of 1."""
    x, y = graph.values[node.inputs[0]].shape, graph.values[node.output].shape
    return y[0] == x[0] * (int(np.prod(x[1:])) // max(int(np.prod(y[1:])), 1)) and (len(y) == 1 or x[0] == y[0])


# ---- the nodes that remain


def _sliced(node: g.Node, graph: g.Graph, needs: Needs) -> g.Node:
    """The node for tensors that lost their channels."""
    x, y = needs[node.inputs[0]], needs[node.output]
    if isinstance(node, (g.QConv, g.QGemm)) and getattr(node, "group", 1) == 1:
        return replace(node, weight=_part(node.weight, y, x), w_scale=node.w_scale[y], bias=node.bias[y])
    if isinstance(node, g.Pad):
        counts = int(y[: node.before[0]].sum()), int(y[len(y) - node.after[0] :].sum()) if node.after[0] else 0
        return replace(node, before=(counts[0], *node.before[1:]), after=(counts[1], *node.after[1:]))
    if isinstance(node, g.Slice) and _keeps_channels(node, graph):
        return replace(node, stops=(int(y.sum()), *node.stops[1:]))
    return node


def _part(weight: g.Weight, outputs: Mask, inputs: Mask) -> g.Weight:
    take: Callable[[Any], Any] = lambda values: np.ascontiguousarray(values[outputs][:, inputs])  # noqa: E731
    if isinstance(weight, g.Int8Weight):
        return replace(weight, values=take(weight.values))
    if weight.group_size is None:
        return replace(weight, codes=take(weight.codes), p=weight.p[outputs], n=weight.n[outputs])
    groups = inputs[:: weight.group_size]
    p, n = (np.ascontiguousarray(side[outputs][:, groups]) for side in (weight.p, weight.n))
    size = min(weight.group_size, int(inputs.sum()))
    return replace(weight, codes=take(weight.codes), p=p, n=n, group_size=size)
