"""The float network and the one being quantized, run side by side on all calibration images, one node at a time.

Each layer is so decided knowing what the layers before it, ternary already, really feed it, at the cost of one pass
through either network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

__all__ = ["Runner"]


class Runner:
    """Computes the nodes of a traced network in evaluation mode, each once; a value is dropped after its last use.

    before: called with a node before it runs (its inputs are there), to change modules in time.
    keep: nodes whose values stay until `take` fetched them, as often as they stand here.
    """

    def __init__(
        self,
        net: GraphModule,
        images: Tensor,
        before: Callable[[Node], None] | None = None,
        keep: Collection[Node] = (),
    ) -> None:
        self._interpreter = Interpreter(net, garbage_collect_values=False)
        self._values: dict[Node, Any] = self._interpreter.env
        self._uses = Counter({node: len(node.users) for node in net.graph.nodes})
        self._keep = Counter(keep)
        self._kept: dict[Node, Tensor] = {}
        self._order = list(net.graph.nodes)
        self._done: set[Node] = set()
        self._before = before
        self._images = images

    def run_to_end(self) -> None:
        """Compute every node."""
        for node in self._order:
            for needed in _unfinished(node, self._done):
                self._run(needed)

    def value(self, node: Node) -> Any:
        """The node's value, computed now with what it needs, unless it is there."""
        for needed in _unfinished(node, self._done):
            self._run(needed)
        return self._values[node]

    def take(self, node: Node) -> Any:
        """The value of a node of `keep`, dropped after the last time."""
        for needed in _unfinished(node, self._done):
            self._run(needed)
        self._keep[node] -= 1
        return self._kept[node] if self._keep[node] else self._kept.pop(node)

    def waits_for(self, node: Node, layers: Collection[Node]) -> bool:
        """Whether one of `layers` still has to run before `node` can."""
        return any(needed in layers for needed in _unfinished(node, self._done))

    @torch.no_grad()
    def _run(self, node: Node) -> None:
        if self._before is not None:
            self._before(node)
        if node.op == "placeholder":
            self._values[node] = self._images
        elif node.op != "output":
            self._values[node] = self._interpreter.run_node(node)
        else:
            self._values[node] = None
        self._done.add(node)
        if self._keep[node]:
            self._kept[node] = self._values[node].clone()  # what follows may work in place
        if not node.users:
            del self._values[node]
        for used in node.all_input_nodes:
            self._used(used)

    def _used(self, node: Node) -> None:
        self._uses[node] -= 1
        if self._uses[node] == 0:
            del self._values[node]


def _unfinished(node: Node, done: Collection[Node]) -> list[Node]:
    """The node and all it needs that have not run, in graph order."""
    if node in done:
        return []
    found, todo = {node}, [node]
    while todo:
        for needed in todo.pop().all_input_nodes:
            if needed not in done and needed not in found:
                found.add(needed)
                todo.append(needed)
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    return sorted(found, key=order.__getitem__)
