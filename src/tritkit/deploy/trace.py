"""From a PyTorch network to a graph of ATen operations whose constants are known: what lowering reads.

`torch.export` follows the network with a free batch, falling back to the example's batch where the code needs a fixed
one. In-place operations become functional, and whatever depends on weights only (parametrizations, say) is computed.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.nn.utils import parametrize

from tritkit import graphs
from tritkit.errors import UnsupportedError, UserError

__all__ = ["Traced", "check_example", "place", "shape_of", "trace"]

_BATCH = 2  # torch.export takes a batch of 1 for a constant


@dataclass(frozen=True)
class Traced:
    """A traced network. `constants` are the values of all nodes that depend on weights only, by node name."""

    module: GraphModule
    constants: dict[str, Any]
    free_batch: bool

    @property
    def nodes(self) -> list[Node]:
        return list(self.module.graph.nodes)

    @property
    def inputs(self) -> list[Node]:
        return [node for node in self.nodes if self.kind(node) == "input"]

    @property
    def outputs(self) -> list[Node]:
        """What the network returns, in order. Raises UnsupportedError unless tensors or flat sequences of them."""
        last = self.nodes[-1]
        found = [x for x in last.all_input_nodes if self.kind(x) != "const"]
        returned = last.args[0] if isinstance(last.args[0], (tuple, list)) else (last.args[0],)
        if not found or len(found) != len(returned):
            raise UnsupportedError("the network must return different tensors that depend on its input")
        return found

    def kind(self, node: Node) -> str:
        """See `tritkit.graphs.aten_kind`."""
        return graphs.aten_kind(node, self.constants)

    def points(self) -> list[Node]:
        """See `tritkit.graphs.quantization_points`."""
        return graphs.quantization_points(self.module.graph, self.kind)

    def chain(self, head: Node) -> list[Node]:
        """See `tritkit.graphs.chain_of`."""
        return graphs.chain_of(head, self.kind)

    def consumers(self, node: Node) -> list[Node]:
        """See `tritkit.graphs.consumers`."""
        return graphs.consumers(node, self.kind)

    def constant(self, argument: Any) -> Tensor | None:
        """The value of a constant argument; None for None. Raises UnsupportedError for an activation."""
        if argument is None:
            return None
        if not isinstance(argument, Node) or argument.name not in self.constants:
            raise UnsupportedError(f"{argument} is computed from the input where a constant weight is needed")
        value = self.constants[argument.name]
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"{argument} is {type(value).__name__} where a constant tensor is needed")
        return value


def trace(net: nn.Module, example: Tensor) -> Traced:
    """The graph of `net` in evaluation mode. example: float32 [N, ...], N ≥ 1; its values do not matter.

    Training flags come back afterwards. Raises UnsupportedError where torch.export cannot follow the network.
    """
    check_example(example)
    batch = example[:1].expand(_BATCH, *example.shape[1:]).clone()
    with _evaluating(net), torch.no_grad(), parametrize.cached(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch.export
        _compute_parametrizations(net)
        program, free = _export(net, batch)
        module = program.run_decompositions({}).graph_module
        values = _constants(program, module)
        _plain_batch_norms(module)
        _fold(module, values)
    return Traced(module, values, free)


def check_example(example: Tensor) -> None:
    """Raises UserError unless `example` is a float32 batch without NaN or infinite values."""
    if not isinstance(example, Tensor):
        raise UserError(f"example must be a tensor [N, ...] as the network takes it, got {type(example).__name__}")
    if example.dtype != torch.float32:
        raise UserError(f"example must be float32, normalised as in training, got {example.dtype}")
    if example.ndim < 2 or example.numel() == 0:
        raise UserError(f"example must be a batch [N, ...] that is not empty, got shape {list(example.shape)}")
    if not bool(torch.isfinite(example).all()):
        raise UserError("example has NaN or infinite values")


def place(node: Node) -> str:
    """Where a node comes from, for error messages: operation, module path and source line."""
    op = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    schema = getattr(node.target, "_schema", None)
    op = schema.name if schema is not None else op
    text = f"{op} in module {owner(node) or '(the network itself)'!r}"
    frames = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    return f"{text}: {frames[-1]}" if frames and not frames[-1].startswith("File") else text


def owner(node: Node) -> str:
    """The path of the module whose forward made the node; "" for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple)]
    path = paths[-1] if paths else ""
    return "" if path.startswith("_empty_nn_module_stack") else path.split("@")[0]


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a node's value without the batch. Raises UnsupportedError where it is not fixed."""
    shape = node.meta["val"].shape[1:]
    if not all(isinstance(n, int) for n in shape):
        raise UnsupportedError(f"{place(node)}: its shape {list(shape)} depends on the batch or on the data")
    return tuple(int(n) for n in shape)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def _compute_parametrizations(net: nn.Module) -> None:
    """Fill the cache of parametrized weights, so that the trace holds their values and not how they are computed."""
    for module in net.modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:  # type: ignore[union-attr]
                getattr(module, name)


def _export(net: nn.Module, batch: Tensor) -> tuple[ExportedProgram, bool]:
    """The program and whether its batch is free."""
    try:
        return torch.export.export(net, (batch,), dynamic_shapes=({0: Dim("batch")},)), True
    except Exception as free_error:
        # torch.export raises many types; a network that fixes its batch may still go with a fixed one
        try:
            return torch.export.export(net, (batch,)), False
        except Exception as error:
            shape = ["N", *batch.shape[1:]]
            reason = (str(error) or str(free_error) or "no reason given").strip().splitlines()[0]
            raise UnsupportedError(
                f"torch.export cannot follow {type(net).__name__} on an input of shape {shape}: {reason}; "
                "check that the shape is the network's and that its control flow does not depend on data"
            ) from error


def _constants(program: ExportedProgram, module: GraphModule) -> dict[str, Any]:
    signature = program.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    targets.update(signature.inputs_to_lifted_tensor_constants)
    tensors = {**program.state_dict, **program.constants}
    names = {node.name for node in module.graph.nodes if node.op == "placeholder"}
    return {name: tensors[target].detach() for name, target in targets.items() if name in names}


def _plain_batch_norms(module: GraphModule) -> None:
    """Turn each evaluation batch norm, which gives three results, into the plain operation that gives one."""
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten._native_batch_norm_legit_no_training.default:
            continue
        x, weight, bias, mean, var, momentum, eps = node.args
        with module.graph.inserting_before(node):
            args = (x, weight, bias, mean, var, False, momentum, eps, False)
            plain = module.graph.call_function(torch.ops.aten.batch_norm.default, args)
        plain.meta = dict(node.meta)
        for user in list(node.users):
            if user.target is operator.getitem and user.args[1] == 0:
                plain.meta["val"] = user.meta["val"]
                user.replace_all_uses_with(plain)
                module.graph.erase_node(user)
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()


def _fold(module: GraphModule, values: dict[str, Any]) -> None:
    """Compute every node whose inputs are all constants, and file it among `values`."""
    for node in module.graph.nodes:
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if node.op != "call_function" or "val" not in node.meta or random:
            continue
        if all(x.name in values for x in node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda x: values[x.name])
            values[node.name] = node.target(*args, **kwargs)
