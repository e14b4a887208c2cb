"""Numbers of a timing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def summary(nanoseconds: Sequence[int]) -> dict[str, Any]:
    """Milliseconds a run: median, 10th and 90th percentile (linear between samples), least; and the number of runs."""
    ms = np.asarray(nanoseconds, np.float64) / 1e6
    p10, median, p90 = (float(q) for q in np.quantile(ms, (0.1, 0.5, 0.9)))
    return {"median_ms": median, "p10_ms": p10, "p90_ms": p90, "min_ms": float(ms.min()), "runs": len(ms)}


def macs_per_cycle(macs: int, seconds: float, hertz: float, cores: int) -> float:
    """Multiply-accumulates a cycle of one core; zeros in the weights count as work done."""
    return macs / (seconds * hertz * cores)


def fastest(rows: Sequence[dict[str, Any]], family: str) -> dict[str, Any] | None:
    """The timed row of the family with the least median."""
    timed = [row for row in rows if row["status"] == "timed" and row["family"] == family]
    return min(timed, key=lambda row: float(row["median_ms"]), default=None)
