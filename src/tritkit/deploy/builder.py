"""Collects the values and nodes of an integer graph while a traced network is lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Node

from tritkit.deploy import graph as g
from tritkit.deploy.trace import Traced, owner

__all__ = ["Builder"]

_STAND_IN = g.Quant(1.0, 0)


class Builder:
    """Maps nodes of the traced graph to values of the integer graph, as codes and as float32, made when needed."""

    def __init__(self, traced: Traced, quants: Mapping[Node, g.Quant]) -> None:
        self.traced = traced
        self.quants = quants
        self.missing: list[Node] = []  # points whose quantization is needed but not known
        self.values: dict[str, g.Value] = {}
        self.nodes: list[g.Node] = []
        self._names: set[str] = set()
        self._codes: dict[Node, str] = {}
        self._floats: dict[Node, str] = {}
        self._point_of: dict[str, Node] = {}  # float value -> where its quantization is filed
        self._quantized: dict[str, str] = {}  # float value -> its codes
        self._deferred: set[Node] = set()

    # ---- names

    def unique(self, name: str) -> str:
        """The name, numbered if it is taken."""
        found, i = name, 1
        while found in self._names:
            i += 1
            found = f"{name}.{i}"
        self._names.add(found)
        return found

    def name_of(self, node: Node) -> str:
        """A new name for an operation without weights: its module and what it does."""
        return self.unique(_described(node))

    # ---- values

    def quant(self, node: Node) -> g.Quant:
        """The quantization of a point; a stand-in where it is missing."""
        if node in self.quants:
            return self.quants[node]
        if node not in self.missing:
            self.missing.append(node)
        return _STAND_IN

    def quant_of(self, value: str) -> g.Quant:
        """The quantization of a value that holds codes."""
        quant = self.values[value].quant
        if quant is None:
            raise TypeError(f"value {value} is float32")
        return quant

    def scale_of(self, value: str) -> float:
        """The scale of a value that holds codes."""
        return self.quant_of(value).scale

    def has(self, node: Node) -> bool:
        """Whether the node is lowered already."""
        return node in self._codes or node in self._floats or node in self._deferred

    def defer(self, node: Node) -> None:
        """Leave the node to its consumers."""
        self._deferred.add(node)

    def set_codes(self, node: Node, value: str) -> None:
        """`value` holds the node's codes."""
        self._codes[node] = value

    def set_float(self, node: Node, value: str, point: Node) -> None:
        """`value` holds the node's result in float32; `point` is where its quantization is filed."""
        self._floats[node] = value
        self._point_of[value] = point

    def alias(self, node: Node, source: Node) -> None:
        """The node is its source by another name."""
        for table in (self._codes, self._floats):
            if source in table:
                table[node] = table[source]

    def as_codes(self, node: Node) -> str:
        """The node's result as codes."""
        if node not in self._codes:
            x = self._floats[node]
            if x not in self._quantized:
                name, quant = self.unique(f"{x}.quantize"), self.quant(self._point_of[x])
                self._quantized[x] = self.emit(g.Quantize, name, [x], self.values[x].shape, quant)
            self._codes[node] = self._quantized[x]
        return self._codes[node]

    def as_float(self, node: Node) -> str:
        """The node's result in float32."""
        if node not in self._floats:
            x = self._codes[node]
            self._floats[node] = self.emit(g.Dequantize, self.unique(f"{x}.dequantize"), [x], self.values[x].shape)
        return self._floats[node]

    # ---- nodes

    def emit(
        self,
        kind: type[g.Node],
        name: str,
        inputs: Sequence[str],
        shape: tuple[int, ...],
        quant: g.Quant | None = None,
        **fields: Any,
    ) -> str:
        """Append a node and return its output's name, which is the node's."""
        output = name
        while output in self.values:
            output += "_"
        self.values[output] = g.Value(output, shape, quant)
        self.nodes.append(kind(name=name, inputs=tuple(inputs), output=output, **fields))
        return output

    def reshaped(self, node: Node, x: str, shape: tuple[int, ...]) -> str:
        """x in another shape."""
        if self.values[x].shape == shape:
            return x
        return self.emit(g.Reshape, self.unique(_described(node, "reshape")), [x], shape, self.quant_of(x))

    def rescaled(self, node: Node, x: str, quant: g.Quant) -> str:
        """x with another scale and zero point."""
        if self.quant_of(x) == quant:
            return x
        return self.emit(g.QRescale, self.unique(_described(node, "rescale")), [x], self.values[x].shape, quant)

    # ---- the end

    def finish(self, metadata: Mapping[str, str]) -> g.Graph:
        """The graph, with its outputs in float32 and named, and checked."""
        inputs = [node.name for node in self.traced.inputs]
        returned = self.traced.outputs
        for node in returned:
            if self._floats.get(node) in inputs:  # a value cannot be input and output at once
                self.as_codes(node)
                del self._floats[node]
        found = [self.as_float(node) for node in returned]
        names = ["output"] if len(found) == 1 else [f"output_{i}" for i in range(len(found))]
        self._rename(dict(zip(found, names, strict=True)))
        graph = g.Graph(tuple(inputs), tuple(names), self.values, tuple(self.nodes), metadata)
        graph.validate()
        return graph

    def _rename(self, names: Mapping[str, str]) -> None:
        """Give values the names wanted; a value that has one of these already steps aside."""
        moved = {value: f"{value}_" for value in names.values() if value in self.values and value not in names}
        names = {**moved, **names}
        self.values = {
            names.get(key, key): replace(value, name=names.get(key, key)) for key, value in self.values.items()
        }
        self.nodes = [
            replace(
                node, inputs=tuple(names.get(x, x) for x in node.inputs), output=names.get(node.output, node.output)
            )
            for node in self.nodes
        ]


def _described(node: Node, op: str | None = None) -> str:
    if op is None:
        schema = getattr(node.target, "_schema", None)
        op = node.name if schema is None else schema.name.partition("::")[2]
    path = owner(node)
    return f"{path}.{op}" if path else op
