"""The same network in the form that a peer runs best."""

from __future__ import annotations

import operator

from torch import fx, nn
from torch.nn import functional


def without_strided_slices(net: nn.Module) -> nn.Module:
    """The same network with x[:, :, ::s, ::s] written as a pooling of one pixel, the same bits."""
    traced = fx.symbolic_trace(net)
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.target is not operator.getitem:
            continue
        x, index = node.args
        step = index[2].step if isinstance(index, tuple) and len(index) == 4 else None
        if index == (slice(None), slice(None), slice(None, None, step), slice(None, None, step)) and step:
            with traced.graph.inserting_after(node):
                pooled = traced.graph.call_function(functional.max_pool2d, (x, 1, step))
            node.replace_all_uses_with(pooled)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced
