"""Which layers of a network become ternary, and what stands behind each: a batch norm, perhaps an addition."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from tritkit.errors import UnsupportedError, UserError
from tritkit.graphs import module_kind
from tritkit.surgery import Select

__all__ = ["Layer", "find_layers", "layer_names"]

Weighted = nn.Conv2d | nn.Linear


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer in a traced network.

    node: its call. module: conv or linear.
    norm: the node and module of the batch norm that alone reads it, or None.
    add: the addition that its (normed) output goes into and nothing else, or None: the end of a residual branch.
    """

    name: str
    node: Node
    module: Weighted
    norm: tuple[Node, nn.BatchNorm1d | nn.BatchNorm2d] | None
    add: Node | None

    @property
    def end(self) -> Node:
        """The node whose value the layer's weight, scale and shift decide: the batch norm, or the layer itself."""
        return self.node if self.norm is None else self.norm[0]

    def weight(self) -> Tensor:
        """float32 [O, I, kh, kw] or [O, I], detached."""
        return self.module.weight.detach().float()


def layer_names(net: GraphModule) -> list[str]:
    """Of the Conv2d and Linear layers, in the order they run, each once."""
    return list(dict.fromkeys(str(node.target) for node in _calls(net, dict(net.named_modules()))))


def find_layers(net: GraphModule, exclude: Select | None) -> tuple[list[Layer], list[Layer]]:
    """(layers to make ternary, all other Conv2d and Linear layers), both in the order they run.

    exclude: as in `ternarize_`; None leaves out the first and the last layer.
    Raises UserError where a pattern matches nothing or nothing is left; UnsupportedError where a layer that is to
    become ternary has no single place: it runs twice, shares its weight or its batch norm, or is a convolution in
    groups.
    """
    modules = dict(net.named_modules())
    nodes, names = _calls(net, modules), layer_names(net)
    if not nodes:
        raise UserError("the network has no Conv2d or Linear layer that could be ternary")
    left = _excluded(names, exclude, modules)
    if len(left) == len(names):
        raise UserError(f"no layer is left to make ternary: {', '.join(sorted(left))} excluded; exclude fewer")
    chosen: list[Layer] = []
    others: list[Layer] = []
    for node in nodes:
        (others if str(node.target) in left else chosen).append(_layer(node, modules))
    problems = {layer.name: reason for layer in chosen if (reason := _problem(layer, net, chosen + others))}
    if problems:
        raise UnsupportedError(f"{'; '.join(problems.values())}; exclude {', '.join(problems)}")
    return chosen, others


def _calls(net: GraphModule, modules: dict[str, nn.Module]) -> list[Node]:
    return [n for n in net.graph.nodes if n.op == "call_module" and isinstance(modules[str(n.target)], Weighted)]


def _excluded(names: list[str], exclude: Select | None, modules: dict[str, nn.Module]) -> set[str]:
    from fnmatch import fnmatchcase

    if exclude is None:
        return {names[0], names[-1]}
    if callable(exclude):
        return {name for name in names if exclude(name, modules[name])}
    left: set[str] = set()
    for pattern in [exclude] if isinstance(exclude, str) else list(exclude):
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            raise UserError(f"exclude: {pattern!r} matches no Conv2d or Linear layer; there are: {', '.join(names)}")
        left |= hits
    return left


def _layer(node: Node, modules: dict[str, nn.Module]) -> Layer:
    module = modules[str(node.target)]
    assert isinstance(module, Weighted)
    norm, end = None, node
    user = _only_user(node)
    if user is not None and user.op == "call_module":
        behind = modules[str(user.target)]
        if isinstance(behind, nn.BatchNorm1d | nn.BatchNorm2d) and behind.running_mean is not None:
            norm, end = (user, behind), user
    return Layer(str(node.target), node, module, norm, _addition(end, modules))


def _addition(end: Node, modules: dict[str, nn.Module]) -> Node | None:
    """The addition of two activations that alone reads `end`, perhaps through a quantizer."""
    user = _only_user(end)
    if user is not None and module_kind(user, modules) == "fake_quantize":
        user = _only_user(user)
    return user if user is not None and module_kind(user, modules) == "add" else None


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _problem(layer: Layer, net: GraphModule, layers: list[Layer]) -> str | None:
    """Why it cannot become ternary, or None."""
    calls = Counter(str(n.target) for n in net.graph.nodes if n.op == "call_module")
    place, module = f"layer {layer.name!r}", layer.module
    if calls[layer.name] > 1:
        return f"{place} runs {calls[layer.name]} times, and one scale and shift cannot fit"
    if layer.norm is not None and calls[str(layer.norm[0].target)] > 1:
        return f"{place}: its batch norm {layer.norm[0].target!s} is used twice"
    if any(other.module.weight is module.weight and other is not layer for other in layers):
        return f"{place} shares its weight with another layer"
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return f"{place} is a convolution in {module.groups} groups, which can only be int8"
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"{place} pads with {module.padding_mode!r}; only zeros are supported"
    return None
