"""Which codes of an integer network are the same for every image, and what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritkit.deploy import graph as g
from tritkit.deploy.reference import Reference

Mask = NDArray[np.bool_]


class Fixed(NamedTuple):
    """Of a quantized tensor's shape for one image: which codes are fixed, and all codes (the zero point elsewhere)."""

    known: Mask
    codes: NDArray[np.uint8]


def fixed_codes(graph: g.Graph) -> dict[str, Fixed]:
    """For every quantized tensor. A code is fixed where it depends on no code that is not; it may differ from place to
    place, as at the border of a padded convolution. Values are those of the NumPy reference.
    """
    reference, found = _Evaluation(graph), dict[str, Fixed]()
    for node in graph.nodes:
        if graph.values[node.output].quant is not None:
            found[node.output] = reference.of(node, found)
    return found


class _Evaluation(Reference):
    """The reference on one image of which only the fixed codes count."""

    def of(self, node: g.Node, found: Mapping[str, Fixed]) -> Fixed:
        shape = self.graph.values[node.output].shape
        inputs = [found[name] for name in node.inputs if name in found]
        if len(inputs) < len(node.inputs) or not (_makes_fixed(node) or any(x.known.any() for x in inputs)):
            return self._nothing(node.output, shape)
        masks = [x.known for x in inputs]
        known = masks[0].reshape(shape) if isinstance(node, g.Reshape) else np.broadcast_to(_known(node, masks), shape)
        codes = self._apply(node, *(x.codes[None] for x in inputs))[0]
        return Fixed(known.copy(), np.where(known, codes, self._zero(node.output)).astype(np.uint8))

    def _nothing(self, name: str, shape: tuple[int, ...]) -> Fixed:
        return Fixed(np.zeros(shape, bool), np.full(shape, self._zero(name), np.uint8))

    def _zero(self, name: str) -> int:
        return self.graph.quant(name).zero_point


def _makes_fixed(node: g.Node) -> bool:
    """Whether fixed codes may arise from none: behind weights that are zero, and in padding."""
    return isinstance(node, (g.QConv, g.QGemm, g.Pad))


def _known(node: g.Node, masks: list[Mask]) -> Mask:
    """Which codes of the output are fixed, in a form that broadcasts against it."""
    x = masks[0]
    if isinstance(node, (g.QConv, g.QGemm)):
        return _layer_known(node, x)
    if isinstance(node, g.QAdd):
        return np.asarray(x & masks[1])
    if isinstance(node, g.Pad):
        widths = list(zip(node.before, node.after, strict=True))
        return np.pad(x, widths, constant_values=True)
    if isinstance(node, g.Slice):
        return x[tuple(slice(*part) for part in zip(node.starts, node.stops, node.steps, strict=True))]
    if isinstance(node, g.Concat):
        return np.concatenate(masks, axis=node.axis - 1)
    if isinstance(node, (g.Clip, g.QRescale)):
        return x
    if isinstance(node, (g.QAveragePool, g.MaxPool)):
        return np.asarray(x.all(axis=(1, 2), keepdims=True))
    return np.zeros((1,) * x.ndim, bool)


def _layer_known(node: g.QConv | g.QGemm, x: Mask) -> Mask:
    """An output is fixed if every input that it has a weight for is."""
    w: NDArray[Any] = node.weight.integers() != 0
    channels = x.reshape(len(x), -1).all(axis=1)
    uses = w.reshape(len(w), w.shape[1], -1).any(axis=2)  # [O, C / group]
    groups = node.group if isinstance(node, g.QConv) else 1
    each = channels.reshape(groups, -1).repeat(len(w) // groups, axis=0)  # [O, C / group]
    known: Mask = np.asarray((each | ~uses).all(axis=1))
    return known.reshape(-1, *[1] * (x.ndim - 1))
