"""The same network in the form that a peer runs best."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def without_norms(net: nn.Module) -> fx.GraphModule:
    """The same network in evaluation mode, with each batch norm folded into the layer that feeds it alone."""
    traced = fx.symbolic_trace(net)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        source = node.args[0]
        layer = modules.get(str(source.target)) if source.op == "call_module" and len(source.users) == 1 else None
        if isinstance(layer, nn.Conv2d):
            traced.set_submodule(str(source.target), fuse_conv_bn_eval(layer, norm))
        elif isinstance(layer, nn.Linear):
            traced.set_submodule(str(source.target), fuse_linear_bn_eval(layer, norm))
        else:
            continue
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


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


def without_groups(net: nn.Module) -> nn.Module:
    """The same network with each convolution in groups as one convolution a group; batch norms are folded first."""
    fused = without_norms(net)
    for name, layer in list(fused.named_modules()):
        if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.in_channels:
            fused.set_submodule(name, _Groups(layer))
    return fused


class _Groups(nn.Module):
    """A convolution in groups, written out."""

    def __init__(self, whole: nn.Conv2d) -> None:
        super().__init__()
        inputs, outputs = (n // whole.groups for n in (whole.in_channels, whole.out_channels))
        self.inputs = inputs
        self.parts = nn.ModuleList()
        for i in range(whole.groups):
            part = nn.Conv2d(
                *(inputs, outputs, (whole.kernel_size[0], whole.kernel_size[1])),
                stride=(whole.stride[0], whole.stride[1]),
                padding=whole.padding if isinstance(whole.padding, str) else (whole.padding[0], whole.padding[1]),
                dilation=(whole.dilation[0], whole.dilation[1]),
                bias=whole.bias is not None,
            )
            part.weight = nn.Parameter(whole.weight[i * outputs : (i + 1) * outputs], requires_grad=False)
            if whole.bias is not None:
                part.bias = nn.Parameter(whole.bias[i * outputs : (i + 1) * outputs], requires_grad=False)
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        starts = (i * self.inputs for i in range(len(self.parts)))
        return torch.cat([part(x[:, i : i + self.inputs]) for part, i in zip(self.parts, starts, strict=True)], 1)
