"""Ternary networks without training: from a float network and some images without labels.

    from tritkit.methods import FGQ
    net = tritkit.quantize(float_net, FGQ(group_size=4), loader)       # at most 1,024 normalised images
    tritkit.export(net, "net.onnx", example)

`start_` begins training with its codes and scales.

How: `BETTER` (the default, some `Steps`) or `FAITHFUL`, the paper's. docs/post-training.md has what each step gains.
"""

from __future__ import annotations

from tritkit.post.counts import Counts, LayerCount, count
from tritkit.post.mixed import BitsPerWeight, Budget, Multiplications, choose_group_sizes
from tritkit.post.power_of_two import PowerOfTwo
from tritkit.post.quantizing import BETTER, FAITHFUL, LAYERWISE, UNIT, Faithful, Steps, quantize
from tritkit.post.start import CHANNELS, start_
from tritkit.post.steps import Compensate, Descend, DescendLogits, MatchMoments, Nearest, Regress, Solve

__all__ = [
    "BETTER",
    "CHANNELS",
    "FAITHFUL",
    "LAYERWISE",
    "UNIT",
    "BitsPerWeight",
    "Budget",
    "Compensate",
    "Counts",
    "Descend",
    "DescendLogits",
    "Faithful",
    "LayerCount",
    "MatchMoments",
    "Multiplications",
    "Nearest",
    "PowerOfTwo",
    "Regress",
    "Solve",
    "Steps",
    "choose_group_sizes",
    "count",
    "quantize",
    "start_",
]
