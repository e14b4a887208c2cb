"""What each node of a traced network is, and where the integer network has quantized tensors.

Two kinds of graph are read: the ATen graph of `torch.export` (`aten_kind`) and the graph of
`torch.fx.symbolic_trace` (`module_kind`). Both name the same kinds, so that training and export place activation
quantizers by the same rule (`quantization_points`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, Node

__all__ = ["KINDS", "aten_kind", "chain_of", "consumers", "module_kind", "quantization_points"]

KINDS = (
    "input", "conv", "linear", "bn", "relu", "relu6", "add", "avgpool", "maxpool", "reshape", "pad", "slice",
    "concat", "identity", "output", "const", "fake_quantize", "other",
)  # fmt: skip
"""`relu6` is every clamp to constant limits but ReLU; `const` is what carries no activations: weights, sizes."""

Kind = Callable[[Node], str]

_HEADS = ("conv", "linear", "bn", "add", "avgpool")
_AFFINE = ("conv", "linear", "bn")  # what a following batch norm folds into
_ACTIVATIONS = ("relu", "relu6")
_TRANSPARENT = ("maxpool", "reshape", "slice", "pad", "identity", *_ACTIVATIONS)


def quantization_points(graph: Graph, kind: Kind) -> list[Node]:
    """The nodes whose result is a quantized tensor with a scale and zero point of its own, in graph order.

    * network inputs;
    * the end of each chain: a convolution, linear, batch norm, addition or average pool, then a batch norm (only
      after the first three) and one ReLU or clamp, as long as each value in between has a single consumer;
    * a concatenation of values that have different quantizers.

    Max pools, reshapes, slices, pads and clamps elsewhere keep their producer's quantizer. A linear layer,
    with its batch norm, whose only consumer is the network's output stays float32.
    """
    points: list[Node] = []
    source: dict[Node, Node] = {}  # value -> the node whose quantizer it has
    for node in graph.nodes:
        what = kind(node)
        if node in source or what in ("output", "const"):
            continue
        if what in _HEADS:
            chain = chain_of(node, kind)
            source.update(dict.fromkeys(chain, chain[-1]))
            if not _is_final_linear(chain, kind):
                points.append(chain[-1])
            continue
        source[node] = _source(node, what, kind, source)
        if what == "input" or (what == "concat" and source[node] is node):
            points.append(node)
    order = {node: i for i, node in enumerate(graph.nodes)}
    return sorted(points, key=order.__getitem__)


def _source(node: Node, what: str, kind: Kind, source: Mapping[Node, Node]) -> Node:
    if what in _TRANSPARENT:
        return source.get(_data_inputs(node, kind)[0], node)
    if what == "concat":
        found = {source.get(x, x) for x in _data_inputs(node, kind)}
        return found.pop() if len(found) == 1 else node
    return node


def _data_inputs(node: Node, kind: Kind) -> list[Node]:
    return [x for x in node.all_input_nodes if kind(x) != "const"] or [node]


def consumers(node: Node, kind: Kind) -> list[Node]:
    """Who uses the value, looking through identities and past users of its shape only."""
    found: list[Node] = []
    for user in node.users:
        what = kind(user)
        if what == "identity":
            found += consumers(user, kind)
        elif what != "const":
            found.append(user)
    return found


def chain_of(head: Node, kind: Kind) -> list[Node]:
    """The nodes from `head` on that become one operation of the integer network; see `quantization_points`."""
    chain = [head]
    while True:
        users = consumers(chain[-1], kind)
        if len(users) != 1:
            return chain
        what = kind(users[0])
        if what in _ACTIVATIONS:
            return [*chain, users[0]]
        if what != "bn" or kind(head) not in _AFFINE:
            return chain
        chain.append(users[0])


def _is_final_linear(chain: list[Node], kind: Kind) -> bool:
    if kind(chain[0]) != "linear" or kind(chain[-1]) not in ("linear", "bn"):
        return False
    return all(kind(user) == "output" for user in consumers(chain[-1], kind))


# ---- torch.export --------------------------------------------------------------------------------

_ATEN = {
    "conv2d": "conv",
    "linear": "linear",
    "batch_norm": "bn",
    "relu": "relu", "relu_": "relu",
    "relu6": "relu6", "relu6_": "relu6", "hardtanh": "relu6", "hardtanh_": "relu6",
    "clamp": "relu6", "clamp_": "relu6", "clamp_min": "relu6", "clamp_min_": "relu6",
    "clamp_max": "relu6", "clamp_max_": "relu6",
    "add": "add", "add_": "add",
    "max_pool2d": "maxpool",
    "avg_pool2d": "avgpool", "adaptive_avg_pool2d": "avgpool", "mean": "avgpool",
    "flatten": "reshape", "reshape": "reshape", "view": "reshape", "_unsafe_view": "reshape",
    "unflatten": "reshape", "squeeze": "reshape", "unsqueeze": "reshape",
    "pad": "pad", "constant_pad_nd": "pad",
    "slice": "slice",
    "cat": "concat", "concat": "concat",
    "dropout": "identity", "dropout_": "identity", "feature_dropout": "identity", "alpha_dropout": "identity",
    "contiguous": "identity", "clone": "identity", "detach": "identity", "detach_": "identity",
    "alias": "identity", "lift_fresh_copy": "identity", "_assert_tensor_metadata": "const", "sym_size": "const",
}  # fmt: skip


def aten_kind(node: Node, constants: Collection[str] = ()) -> str:
    """The kind of a node in an exported graph; constants: the names of nodes that hold weights or buffers."""

    def is_const(x: Node) -> bool:
        return x.name in constants or x.op == "get_attr"

    if node.op == "output":
        return "output"
    if is_const(node):
        return "const"
    if node.op == "placeholder":
        return "input"
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # arithmetic on sizes, or a part of an operation that is not known
        return "other" if isinstance(node.meta.get("val"), torch.Tensor) else "const"
    space, _, name = schema.name.partition("::")
    if (space, name) == ("tritkit", "fake_quantize"):
        return "fake_quantize"
    what = _ATEN.get(name, "other") if space == "aten" else "other"
    return _checked(what, name, node, is_const)


def _checked(what: str, name: str, node: Node, is_const: Callable[[Node], bool]) -> str:
    """`what`, or "other" where the arguments make it another operation."""
    if what == "add" and not _adds_two_activations(node, is_const):
        return "other"
    if name == "mean" and not _averages_pixels(node):
        return "other"
    return what


def _adds_two_activations(node: Node, is_const: Callable[[Node], bool]) -> bool:
    pair = node.args[:2]
    if len(pair) != 2 or node.kwargs.get("alpha", 1) != 1:
        return False
    return all(isinstance(x, Node) and not is_const(x) for x in pair)


def _averages_pixels(node: Node) -> bool:
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
    return isinstance(dims, (list, tuple)) and sorted(dims) in ([2, 3], [-2, -1])


# ---- torch.fx.symbolic_trace ----------------------------------------------------------------------

_MODULES: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str], ...] = (
    (nn.Conv2d, "conv"),
    (nn.Linear, "linear"),
    ((nn.BatchNorm1d, nn.BatchNorm2d), "bn"),
    (nn.ReLU, "relu"),
    (nn.Hardtanh, "relu6"),  # ReLU6 is one
    (nn.MaxPool2d, "maxpool"),
    ((nn.AvgPool2d, nn.AdaptiveAvgPool2d), "avgpool"),
    ((nn.Flatten, nn.Unflatten), "reshape"),
    ((nn.ZeroPad2d, nn.ConstantPad2d), "pad"),
    ((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout), "identity"),
)

_FUNCTIONS: dict[Any, str] = {
    F.conv2d: "conv", torch.conv2d: "conv",
    F.linear: "linear",
    F.batch_norm: "bn", torch.batch_norm: "bn",
    F.relu: "relu", F.relu_: "relu", torch.relu: "relu", torch.relu_: "relu",
    F.relu6: "relu6", F.hardtanh: "relu6", torch.clamp: "relu6", torch.clip: "relu6",
    operator.add: "add", operator.iadd: "add", torch.add: "add",
    F.max_pool2d: "maxpool", torch.max_pool2d: "maxpool",
    F.avg_pool2d: "avgpool", F.adaptive_avg_pool2d: "avgpool", torch.mean: "avgpool",
    torch.flatten: "reshape", torch.reshape: "reshape", torch.squeeze: "reshape", torch.unsqueeze: "reshape",
    F.pad: "pad",
    torch.cat: "concat", torch.concat: "concat", torch.concatenate: "concat",
    F.dropout: "identity", F.dropout2d: "identity", torch.clone: "identity",
    operator.getitem: "slice",
    getattr: "const",
}  # fmt: skip

_ARITHMETIC = (operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg)

_METHODS = {
    "relu": "relu", "relu_": "relu",
    "clamp": "relu6", "clamp_": "relu6", "clip": "relu6",
    "add": "add", "add_": "add",
    "mean": "avgpool",
    "view": "reshape", "reshape": "reshape", "flatten": "reshape",
    "squeeze": "reshape", "unsqueeze": "reshape",
    "contiguous": "identity", "clone": "identity", "detach": "identity",
    "size": "const", "dim": "const",
}  # fmt: skip


def module_kind(node: Node, modules: Mapping[str, nn.Module]) -> str:
    """The kind of a node in a symbolically traced graph; `modules` as of `dict(net.named_modules())`."""
    if node.op in ("placeholder", "output", "get_attr"):
        return {"placeholder": "input", "output": "output", "get_attr": "const"}[node.op]
    if node.op == "call_module":
        return _kind_of_module(modules[str(node.target)])
    table: Mapping[Any, str] = _METHODS if node.op == "call_method" else _FUNCTIONS
    what = table.get(node.target, "other")
    if _is_size(node):
        return "const"
    if what == "slice" and not _is_plain_slice(node):
        return "other"
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return _checked(what, name, node, _is_size)


def _is_size(node: Node) -> bool:
    """Whether the value is a weight, a size or computed from sizes only."""
    if node.op == "get_attr" or _METHODS.get(str(node.target), "") == "const" or node.target is getattr:
        return True
    if node.op != "call_function" or node.target not in _ARITHMETIC:
        return False
    return bool(node.all_input_nodes) and all(_is_size(x) for x in node.all_input_nodes)


def _kind_of_module(module: nn.Module) -> str:
    if type(module).__name__ == "FakeQuantize":  # by name: this file imports torch only
        return "fake_quantize"
    return next((what for types, what in _MODULES if isinstance(module, types)), "other")


def _is_plain_slice(node: Node) -> bool:
    index = node.args[1]
    items = index if isinstance(index, tuple) else (index,)
    return all(isinstance(item, slice) or item is Ellipsis for item in items)
