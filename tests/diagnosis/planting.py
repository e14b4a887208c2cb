"""Fourteen faults, each planted alone into a healthy network: the packaged ResNet-20, or a small one for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import tritkit
from tritkit.deploy import Graph, from_onnx, to_onnx
from tritkit.deploy import graph as g
from tritkit.methods import TWN
from tritkit.zoo import hub


class Planted(NamedTuple):
    """kind and place of the finding it must give; `write` makes the file; `with_it` are kinds that may come along."""

    kind: str
    place: str
    write: Callable[[Path], None]
    with_it: tuple[str, ...] = ()


def _edited(node: str, change: Callable[[Graph, Any], Graph]) -> Callable[[Path], None]:
    """The packaged network with one node changed."""

    def write(path: Path) -> None:
        graph = from_onnx(hub("resnet20-cifar10-ternary"))
        found = next(n for n in graph.nodes if n.name == node)
        path.write_bytes(to_onnx(change(graph, found)).SerializeToString())

    return write


def _with(graph: Graph, old: g.Node, **fields: Any) -> Graph:
    nodes = tuple(replace(n, **fields) if n is old else n for n in graph.nodes)
    return replace(graph, nodes=nodes)


def _codes(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Graph, Any], Graph]:
    return lambda graph, n: _with(graph, n, weight=replace(n.weight, codes=change(n.weight.codes.copy())))


def _filled(codes: np.ndarray) -> np.ndarray:
    signs = np.random.default_rng(0).choice([-1, 1], codes.shape).astype(np.int8)
    return np.where(codes == 0, signs, codes)


def _some_rows_empty(codes: np.ndarray) -> np.ndarray:
    codes[::3] = 0
    return codes


def _collapse(graph: Graph, n: Any) -> Graph:
    weight = replace(n.weight, p=np.full_like(n.weight.p, 64), n=np.ones_like(n.weight.n))
    return _with(graph, n, weight=weight)


def _negative(graph: Graph, n: Any) -> Graph:
    rows = json.loads(graph.metadata["tritkit.layers"])
    for row in rows:
        if row["name"] == n.name:
            row["wn"] = -0.02
    return replace(graph, metadata={**graph.metadata, "tritkit.layers": json.dumps(rows)})


def _scale_times(factor: float) -> Callable[[Graph, Any], Graph]:
    def change(graph: Graph, n: g.Node) -> Graph:
        value = graph.values[n.output]
        assert value.quant is not None
        quant = g.Quant(float(np.float32(value.quant.scale * factor)), value.quant.zero_point)
        nodes = tuple(_with_bias_over(reader, n.output, factor) for reader in graph.nodes)
        return replace(graph, nodes=nodes, values={**graph.values, n.output: replace(value, quant=quant)})

    return change


def _with_bias_over(reader: g.Node, name: str, factor: float) -> g.Node:
    """A layer's bias counts in its input's scale: the same bias where that grew by `factor`."""
    if name not in reader.inputs or not isinstance(reader, (g.QConv, g.QGemm)):
        return reader
    return replace(reader, bias=np.rint(reader.bias / factor).astype(np.int32))


def _bias(at: slice, value: int) -> Callable[[Graph, Any], Graph]:
    def change(graph: Graph, n: Any) -> Graph:
        bias = n.bias.copy()
        bias[at] = value
        return _with(graph, n, bias=bias)

    return change


def small_images(size: int) -> torch.Tensor:
    """float32 [32, 4, size, size] that differ in more than noise, so that pooled features do too."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 4, size, size, generator=generator) + 3 * torch.randn(32, 4, 1, 1, generator=generator)


def _exported(net: nn.Module, size: int = 16, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        images = small_images(size)
        tritkit.export(net.eval(), path, images[:1], calibration=[images], check=False, **options)

    return write


class _Small(nn.Module):
    """A convolution, a pool, a classifier."""

    def __init__(self, conv: nn.Conv2d, ternary: tuple[str, ...] = ("conv", "hidden")) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool = conv, nn.AdaptiveAvgPool2d(2)
        self.hidden, self.linear = nn.Linear(4 * conv.out_channels, 256), nn.Linear(256, 10)
        for layer in (self.hidden, self.linear):
            nn.init.kaiming_normal_(layer.weight)
        if ternary:
            tritkit.ternarize_(self, TWN(), include=list(ternary))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.hidden(self.pool(self.conv(x).relu()).flatten(1)).relu())


def _conv(*sizes: int, groups: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(*sizes, groups=groups)


def silenced(name: str, channels: int) -> Callable[[Path], None]:
    """The packaged network, its layer's first channels far below zero."""
    return _edited(name, _bias(slice(0, channels), -(2**29)))


PLANTED = (
    Planted("dead-layer", "layer2.1.conv1", _edited("layer2.1.conv1", _codes(np.zeros_like))),
    Planted("dense-layer", "layer2.2.conv2", _edited("layer2.2.conv2", _codes(_filled)), ("saturated",)),
    Planted("empty-filters", "layer3.0.conv1", _edited("layer3.0.conv1", _codes(_some_rows_empty))),
    Planted("collapsed-scale", "layer1.1.conv2", _edited("layer1.1.conv2", _collapse), ("saturated", "dead-channels")),
    Planted("scale-sign", "layer3.1.conv1", _edited("layer3.1.conv1", _negative)),
    Planted("saturated", "layer2.0.conv1", _edited("layer2.0.conv1", _scale_times(1 / 8))),
    Planted("wide-range", "layer2.0.add", _edited("layer2.0.add", _scale_times(16))),
    Planted("dead-channels", "layer3.0.conv1", silenced("layer3.0.conv1", 32)),
    Planted("input-range", "x.quantize", _edited("x.quantize", _scale_times(16))),
    Planted("one-answer", "linear", _edited("linear", _bias(slice(3, 4), 2**29))),
    Planted("float-bytes", "hidden", _exported(_Small(_conv(4, 16, 3), ("conv",)), policies={"hidden": "float32"})),
    Planted("int8-bytes", "hidden", _exported(_Small(_conv(4, 16, 3), ()))),
    Planted("slow-kernel", "conv", _exported(_Small(_conv(4, 16, 33), ("hidden",)), size=36), ("int8-bytes",)),
    Planted("idle-lanes", "conv", _exported(_Small(_conv(4, 8, 3, groups=2)), size=36)),
)
