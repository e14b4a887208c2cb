"""Multiplications, additions and energy of one image, by published energies of single operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from tritkit.inspection import LayerWeights
from tritkit.report.published import ENERGY_PJ, ENERGY_SOURCE

Facts = dict[str, Any]
_SUMMED = ("macs", "multiplications", "additions", "float_pj", "int8_pj", "pj")
_FLOAT_PJ = ENERGY_PJ["float32_multiply"] + ENERGY_PJ["float32_add"]
_INT8_PJ = ENERGY_PJ["int8_multiply"] + ENERGY_PJ["int32_add"]


def operation_facts(
    layers: list[Facts], macs: dict[str, int], ternary: dict[str, LayerWeights], sizes: Facts
) -> Facts | None:
    """What the layers of one image cost; None where no layer's multiply-accumulates are known.

    layers: of `inspect_file`. macs: multiply-accumulates of each layer by name, zeros counted.

    A ternary layer adds once for each weight that is not zero, in 32 bits, and multiplies the sums by their scales: one
    multiplication an output for equal scales, two for Wp ≠ Wn, as many for each group. A float or int8 layer
    multiplies and adds once for each weight.
    """
    rows = [_layer(row, macs[row["name"]], ternary.get(row["name"])) for row in layers if row["name"] in macs]
    if not rows:
        return None
    total = {key: sum(row[key] for row in rows) for key in _SUMMED}
    bits = ENERGY_PJ["dram_64_bits"] / 8
    return {
        "layers": rows,
        **total,
        "removed": 1 - total["multiplications"] / total["macs"] if total["macs"] else None,
        "float_ratio": total["float_pj"] / total["pj"] if total["pj"] else None,
        "int8_ratio": total["int8_pj"] / total["pj"] if total["pj"] else None,
        "ways": [
            _way("float32", total["macs"], total["macs"], total["float_pj"], bits * sizes["float_bytes"]),
            _way("int8", total["macs"], total["macs"], total["int8_pj"], bits * sum(row["weights"] for row in layers)),
            _way("this file", total["multiplications"], total["additions"], total["pj"], bits * sizes["bytes"]),
        ],
        "energies_pj": ENERGY_PJ,
        "source": ENERGY_SOURCE,
    }


def _way(name: str, multiplications: int, additions: int, pj: float, memory_pj: float) -> Facts:
    made = {"way": name, "multiplications": multiplications, "additions": additions}
    return {**made, "pj": pj, "memory_pj": memory_pj, "total_pj": pj + memory_pj}


def _layer(row: Facts, macs: int, ternary: LayerWeights | None) -> Facts:
    weights = max(row["weights"], 1)
    positions = macs // weights
    float_pj, int8_pj = macs * _FLOAT_PJ, macs * _INT8_PJ
    multiplications = additions = macs
    own = {"float32": float_pj, "int8": int8_pj}.get(row["kind"], float_pj)
    if ternary is not None and row["density"] is not None:
        additions = round(row["density"] * weights) * positions
        multiplications = scales_a_position(ternary) * positions
        own = additions * ENERGY_PJ["int32_add"] + multiplications * ENERGY_PJ["int32_multiply"]
    return {
        "name": row["name"],
        "kind": row["kind"],
        "macs": macs,
        "multiplications": multiplications,
        "additions": additions,
        "float_pj": float_pj,
        "int8_pj": int8_pj,
        "pj": own,
    }


def scales_a_position(layer: LayerWeights) -> int:
    """Scales that the sums of one position are multiplied by: one an output or group, two where Wp ≠ Wn."""
    plus, minus = layer.plus, layer.minus
    groups = len(layer.values) if layer.group_size is None or plus is None else plus.size
    return groups if plus is None or minus is None or np.array_equal(plus, minus) else 2 * groups
