"""Scales and zero points of a traced network: read from its fake quantizers, or observed on calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from tritkit.deploy.graph import Quant
from tritkit.deploy.trace import Traced, place
from tritkit.errors import UserError
from tritkit.observers import Observer, Range

__all__ = ["given_quants", "missing_error", "observe"]


def given_quants(traced: Traced) -> dict[Node, Quant]:
    """The quantization of each fake quantizer and of each quantization point that one follows."""
    found = {node: _read(traced, node) for node in traced.nodes if traced.kind(node) == "fake_quantize"}
    for point in traced.points():
        for user in traced.consumers(point):
            if user in found:
                found[point] = found[user]
                break
    return found


def _read(traced: Traced, node: Node) -> Quant:
    scale, zero_point = (traced.constant(x) for x in node.args[1:3])
    if scale is None or zero_point is None:
        raise UserError(f"{place(node)}: a quantizer without scale or zero point")
    return Quant(float(scale), int(zero_point))


def missing_error(nodes: Iterable[Node]) -> UserError:
    """What to say where tensors have no range."""
    places = ", ".join(f"{node.name} ({place(node)})" if node.op != "placeholder" else node.name for node in nodes)
    return UserError(
        f"these tensors have no quantization range: {places}. Call net = tritkit.quantize_activations(net) and "
        "tritkit.calibrate(net, batches) before export, or pass calibration=batches"
    )


def observe(traced: Traced, nodes: Iterable[Node], batches: Iterable[Any], observer: Observer) -> dict[Node, Quant]:
    """Run `batches` through the network and choose the quantization of these nodes' values.

    A batch is a float32 tensor [N, ...] or a sequence that begins with one. Raises UserError for no batch or bad ones.
    """
    ranges = {node: Range(observer) for node in nodes}
    runner = _Watcher(traced, ranges)
    count = 0
    for i, batch in enumerate(batches):
        images = _images(traced, batch, i)
        for part in _parts(traced, images):
            runner.feed(part)
        count += 1
    if count == 0:
        raise UserError("calibration has no batch; give it a few hundred images (is it an iterator that ran out?)")
    return {node: Quant(*seen.quant()) for node, seen in ranges.items()}


def _parts(traced: Traced, images: Tensor) -> Iterable[Tensor]:
    """The batch, in pieces of the traced batch where that is fixed; a last short piece repeats its images."""
    if traced.free_batch:
        return [images]
    size = traced.inputs[0].meta["val"].shape[0]
    pieces = torch.split(images, size)
    return [torch.cat([p] * size)[:size] for p in pieces]


def _images(traced: Traced, batch: Any, index: int) -> Tensor:
    images = batch[0] if isinstance(batch, (tuple, list)) else batch
    shape = tuple(traced.inputs[0].meta["val"].shape[1:])
    if not isinstance(images, Tensor) or images.dtype != torch.float32 or tuple(images.shape[1:]) != shape:
        given = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"calibration batch {index} must be float32 {['N', *shape]}, got {given}")
    if images.numel() == 0 or not bool(torch.isfinite(images).all()):
        raise UserError(f"calibration batch {index} is empty or has NaN or infinite values")
    return images


class _Watcher(Interpreter):
    """Runs the traced graph and shows chosen values to their observers."""

    def __init__(self, traced: Traced, ranges: Mapping[Node, Range]) -> None:
        super().__init__(traced.module)
        self.traced = traced
        self.ranges = ranges

    def run_node(self, n: Node) -> Any:
        constant = self.traced.constants.get(n.name)
        result = super().run_node(n) if constant is None or n.op == "placeholder" else constant
        if n in self.ranges:
            self.ranges[n].update(result)
        return result

    def feed(self, images: Tensor) -> None:
        values = [self.traced.constants.get(n.name, images) for n in self.traced.nodes if n.op == "placeholder"]
        with torch.no_grad():
            self.run(*values)
