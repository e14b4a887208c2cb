"""What shows only when images run through the integer network: ranges that do not fit them, channels without life."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tritkit.deploy import Graph, Simulation
from tritkit.deploy import graph as g
from tritkit.diagnosis.finding import Finding, percent, share
from tritkit.errors import UserError

_CLIPPED = 0.02  # share of a tensor's codes at an end of its range; healthy ones have a thousandth
_INPUT_CLIPPED = 0.05
_NARROW = 64  # codes between the smallest and the largest, of 256; fewer lose two bits
_SILENT = 1 / 3  # share of a layer's filters, with weights, whose result is constant; of healthy ones up to a quarter
_FEWEST_VALUES = 256  # of a channel, below which one that is seldom above zero may look silent
FEWEST_IMAGES = 16  # below which a tensor may well stay in a part of its range, and all answers be one
_REQUANTIZED = (g.Quantize, g.QConv, g.QGemm, g.QAdd, g.QAveragePool, g.QRescale)
_LIMITS = (1.0, 6.0)  # of clip(x, 0, 1) and of ReLU6, where codes at the end are meant to be there


@dataclass
class Observed:
    """Codes of a tensor over all images: how often each, and the least and the largest of each channel."""

    counts: NDArray[np.int64]
    low: NDArray[np.uint8]
    high: NDArray[np.uint8]

    def add(self, codes: NDArray[np.uint8]) -> None:
        axes = (0, *range(2, codes.ndim))
        self.counts += np.bincount(codes.reshape(-1), minlength=256)
        self.low = np.minimum(self.low, codes.min(axis=axes))
        self.high = np.maximum(self.high, codes.max(axis=axes))

    @property
    def span(self) -> int:
        """Codes from the smallest to the largest."""
        used = np.flatnonzero(self.counts)
        return int(used[-1] - used[0]) + 1


@dataclass
class Observations:
    """All tensors over all images."""

    tensors: dict[str, Observed]
    answers: list[int]
    images: int


def observe(graph: Graph, batches: Iterable[NDArray[np.float32]]) -> Observations:
    """Run float32 batches [N, ...] through the graph. UserError where there is no image, or one is not finite."""
    simulation, seen = Simulation(graph), Observations({}, [], 0)
    for batch in batches:
        if not np.isfinite(batch).all():
            raise UserError("the images have NaN or infinite values; give finite ones")
        values = simulation.values(torch.from_numpy(np.ascontiguousarray(batch)))
        seen.images += len(batch)
        for name, value in graph.values.items():
            if value.quant is not None:
                _add(seen.tensors, name, values[name].numpy().astype(np.uint8))
        logits = values[graph.outputs[0]]
        if len(graph.outputs) == 1 and logits.ndim == 2 and logits.shape[1] > 1:
            seen.answers += logits.argmax(1).tolist()
    if not seen.images:
        raise UserError("there are no images to look at; give at least one")
    return seen


def _add(tensors: dict[str, Observed], name: str, codes: NDArray[np.uint8]) -> None:
    if name not in tensors:
        channels = codes.shape[1]
        least, most = np.full(channels, 255, np.uint8), np.zeros(channels, np.uint8)
        tensors[name] = Observed(np.zeros(256, np.int64), least, most)
    tensors[name].add(codes)


def activation_findings(graph: Graph, seen: Observations) -> Iterator[Finding]:
    """Tensors clipped or hardly used, channels that never change, an answer that never changes."""
    readers: dict[str, list[g.Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for node in graph.nodes:
        quant = graph.values[node.output].quant
        if quant is None or not isinstance(node, _REQUANTIZED):
            continue
        codes = seen.tensors[node.output]
        meant = bool(readers.get(node.output)) and all(isinstance(r, g.Clip) for r in readers[node.output])
        yield from _range(node, quant, codes, meant or _limited(quant))
        if isinstance(node, (g.QConv, g.QGemm)):
            yield from _silent(node, codes)
    yield from _one_answer(graph, seen)


def _limited(quant: g.Quant) -> bool:
    top = quant.scale * (255 - quant.zero_point)
    return any(abs(top - limit) < 1e-3 * limit for limit in _LIMITS)


def _range(node: g.Node, quant: g.Quant, seen: Observed, meant: bool) -> Iterator[Finding]:
    total = int(seen.counts.sum())
    above = share(int(seen.counts[255]), total)
    below = share(int(seen.counts[0]), total) if quant.zero_point > 0 else 0.0
    clipped = max(above, below)
    is_input = isinstance(node, g.Quantize)
    if seen.span == 1:
        return  # nothing changes: said of the layer, or of the image
    if clipped > (_INPUT_CLIPPED if is_input else _CLIPPED) and not meant:
        yield _saturated(node, quant, above, below, is_input)
    elif seen.span < _NARROW:
        yield _narrow(node, quant, seen, is_input)


def _real(quant: g.Quant) -> str:
    low, high = (quant.scale * (code - quant.zero_point) for code in (0, 255))
    return f"{low:.3g} to {high:.3g}"


def _saturated(node: g.Node, quant: g.Quant, above: float, below: float, is_input: bool) -> Finding:
    ends = [f"{percent(s)} at the {e}" for s, e in ((above, "upper end"), (below, "lower end")) if s > 0.001]
    fix = "calibrate with images like these, normalised as they are here, and export again"
    if is_input:
        fix = "normalise images as in training (mean and std in the file's metadata), or calibrate with such images"
    return Finding(
        "input-range" if is_input else "saturated",
        node.name,
        f"values do not fit the range {_real(quant)}",
        f"{' and '.join(ends)} are clipped",
        fix,
        {"clipped_above": above, "clipped_below": below},
    )


def _narrow(node: g.Node, quant: g.Quant, seen: Observed, is_input: bool) -> Finding:
    fix = "calibrate with images like these (tritkit.calibrate), or by an observer without outliers (Percentile)"
    if is_input:
        fix = "normalise images as in training (mean and std in the file's metadata); pixels go from 0 to 1 first"
    return Finding(
        "input-range" if is_input else "wide-range",
        node.name,
        f"values use {seen.span} of 256 codes: the range {_real(quant)} is far wider than they need",
        f"{np.log2(256 / seen.span):.1f} of 8 bits are lost",
        fix,
        {"codes_used": seen.span, "bits_lost": float(np.log2(256 / seen.span))},
    )


def _silent(node: g.QConv | g.QGemm, seen: Observed) -> Iterator[Finding]:
    """Filters with weights whose result never changes."""
    alive = node.weight.integers().reshape(node.weight.shape[0], -1).any(axis=1)
    silent = int((alive & (seen.low == seen.high)).sum())
    outputs, each = node.weight.shape[0], int(np.prod(node.weight.shape[1:]))
    if share(silent, outputs) < _SILENT or seen.counts.sum() < _FEWEST_VALUES * outputs:
        return
    yield Finding(
        "dead-channels",
        node.name,
        f"{silent} of {outputs} channels have the same value everywhere, in every image, though they have weights",
        f"{silent * each:,} weights ({percent(share(silent, outputs))} of the layer) work for nothing",
        "their bias or batch norm pushes them below zero: fresh statistics (reestimate_bn_), a lower learning rate",
        {"channels": silent, "weights": silent * each, "share_of_channels": share(silent, outputs)},
    )


def _one_answer(graph: Graph, seen: Observations) -> Iterator[Finding]:
    if not seen.answers or len(set(seen.answers)) > 1:
        return
    yield Finding(
        "one-answer",
        next(node.name for node in graph.nodes if node.output == graph.outputs[0]),
        f"all {len(seen.answers)} images are put into class {seen.answers[0]}",
        "the network tells nothing apart",
        "look at the findings above first; else the classifier is broken: evaluate the float network",
        {"images": len(seen.answers)},
    )


def some_images(images: NDArray[Any], macs: int) -> NDArray[Any]:
    """As many of them as take some ten seconds to look at, 16 to 256, at even distances."""
    count = int(np.clip(2e10 // max(macs, 1), FEWEST_IMAGES, 256))
    return images[:: max(len(images) // count, 1)][:count]
