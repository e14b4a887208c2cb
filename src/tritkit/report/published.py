"""Numbers that others published and the report shows beside its own, each with its source."""

from __future__ import annotations

ENERGY_SOURCE = (
    "M. Horowitz, Computing's Energy Problem (and what we can do about it), ISSCC 2014: 45 nm, 0.9 V; "
    "the lower end of its range for DRAM"
)
ENERGY_PJ = {
    "float32_multiply": 3.7,
    "float32_add": 0.9,
    "int32_multiply": 3.1,
    "int32_add": 0.1,
    "int8_multiply": 0.2,
    "dram_64_bits": 1300.0,
}
"""Picojoules an operation."""

ALEXNET_SOURCE = "S. Han et al., Learning both Weights and Connections, NIPS 2015, and TTQ, as TTQ's Table 4 has them"
ALEXNET_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "fc3")
ALEXNET_PRUNED = (0.84, 0.38, 0.35, 0.37, 0.37, 0.09, 0.09, 0.25)
"""Share of weights that pruning keeps, in the order of the layers."""
ALEXNET_TTQ = (1.0, 0.23, 0.24, 0.40, 0.43, 0.30, 0.36, 1.0)
"""Share of weights that are not zero in TTQ's Table 4."""
ALEXNET_PRUNED_BITS = (8, 8, 8, 8, 8, 5, 5, 5)
ALEXNET_TTQ_BITS = (32, 2, 2, 2, 2, 2, 2, 32)
ALEXNET_TOTALS = {"convolutions": (0.37, 0.33), "linear layers": (0.10, 0.37), "all layers": (0.11, 0.37)}
"""Share of weights that are left by pruning, and by TTQ."""


def looks_like_alexnet(shapes: list[list[int]]) -> bool:
    """Five convolutions, the first of 11 × 11 or 12 × 12, the second of 5 × 5, three of 3 × 3; three linear layers."""
    if len(shapes) != len(ALEXNET_LAYERS) or any(len(shape) != 4 for shape in shapes[:5]):
        return False
    kernels = [shape[2] for shape in shapes[:5]]
    return kernels[0] in (11, 12) and kernels[1:] == [5, 3, 3, 3] and all(len(shape) == 2 for shape in shapes[5:])
