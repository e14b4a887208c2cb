"""The kernels of ternary convolutions: how many are empty, and a sample to look at (TTQ, section 6.2 and Figure 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Facts = dict[str, Any]
Codes = NDArray[np.int8]
_SAMPLE = 96
_LETTERS = np.array(list("-0+"))


def kernel_facts(name: str, codes: Codes, positions: int | None) -> Facts | None:
    """Of one layer's kernels of more than one weight; None for other layers.

    codes: [O, I, kh, kw]. positions: pixels of the output, None where not known.
    """
    if codes.ndim != 4 or codes.shape[2] * codes.shape[3] == 1:
        return None
    outputs, inputs, height, width = codes.shape
    used = np.count_nonzero(codes, axis=(2, 3))
    counts = np.bincount(used.ravel(), minlength=height * width + 1)
    empty, single = int(counts[0]), int(counts[1])
    return {
        "name": name,
        "height": height,
        "width": width,
        "kernels": used.size,
        "empty": empty,
        "empty_share": empty / used.size,
        "single": single,
        "single_share": single / used.size,
        "by_weights": [int(count) for count in counts],
        "empty_outputs": int(np.count_nonzero(used.sum(1) == 0)),
        "unread_inputs": int(np.count_nonzero(used.sum(0) == 0)),
        "saved_bytes": empty * height * width // 4,
        "saved_macs": None if positions is None else empty * height * width * positions,
        "sample": _sample(codes.reshape(outputs * inputs, height * width)),
    }


def _sample(kernels: Codes) -> list[str]:
    """Kernels at even distances, each a string of −, 0 and + in reading order."""
    chosen = kernels[np.linspace(0, len(kernels) - 1, min(_SAMPLE, len(kernels))).astype(int)]
    return ["".join(row) for row in _LETTERS[chosen + 1]]


def kernel_totals(rows: list[Facts], macs: int | None) -> Facts:
    """All layers together. macs: of the whole network."""
    kernels = sum(row["kernels"] for row in rows)
    total = {key: sum(row[key] for row in rows) for key in ("empty", "single", "empty_outputs", "unread_inputs")}
    known = [row["saved_macs"] for row in rows if row["saved_macs"] is not None]
    saved = sum(known) if len(known) == len(rows) else None
    return {
        "layers": rows,
        "kernels": kernels,
        **total,
        "empty_share": total["empty"] / kernels if kernels else None,
        "single_share": total["single"] / kernels if kernels else None,
        "saved_bytes": sum(row["saved_bytes"] for row in rows),
        "saved_macs": saved,
        "saved_macs_share": saved / macs if saved is not None and macs else None,
    }
