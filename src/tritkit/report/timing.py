"""The time of each step of the engine's plan, and what share of the processor's limit a layer reaches."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.bench import clock
from tritkit.bench.facts import cpu_name
from tritkit.report.plan import family, parts, uses_tiles
from tritkit.runtime import Session

Facts = dict[str, Any]
Inputs = dict[str, NDArray[np.float32]]
_SECONDS = 1.0  # for the whole network, and again for its steps
_WARM_SECONDS = 0.3
_LEAST = 5  # runs


def time_facts(session: Session) -> Facts:
    """Microseconds of one image (of noise): the whole network and each step, the median of about a second of runs.

    The network is timed before its steps and after them, and the quieter time counts.
    """
    image = noise(session)
    whole = _median(session, image)
    repeat = int(np.clip(_SECONDS * 1e6 / whole, _LEAST, 2000))
    vectors, tiles, hertz = clock.dot_products_per_cycle(), clock.tile_products_per_cycle(), clock.hertz()
    rows = []
    for step, timed in zip(session.summary(), session.profile(image, repeat), strict=True):
        cycles = timed.microseconds * 1e-6 * hertz * session.threads if hertz else None
        rate = step.macs / cycles if cycles and step.macs else None
        limit = tiles if uses_tiles(step.kernel) else vectors
        rows.append(
            {
                "name": step.name,
                "layers": parts(step.name),
                "op": step.op,
                "kernel": step.kernel,
                "family": family(step),
                "density": step.density,
                "macs": step.macs,
                "microseconds": timed.microseconds,
                "share": timed.share,
                "macs_per_cycle": rate,
                "of_limit": rate / limit if rate is not None and limit else None,
            }
        )
    whole = min(whole, _median(session, image))
    return {
        "microseconds": whole,
        "steps_microseconds": sum(row["microseconds"] for row in rows),
        "images_per_second": 1e6 / whole,
        "batch": 1,
        "threads": session.threads,
        "steps": rows,
        "families": _families(rows),
        "macs": sum(row["macs"] for row in rows),
        "limit_macs_per_cycle": vectors,
        "tile_limit_macs_per_cycle": tiles,
        "gigahertz": hertz / 1e9 if hertz else None,
        "cpu": cpu_name(),
    }


def noise(session: Session) -> Inputs:
    """An image for each input, the same in every call."""
    random = np.random.default_rng(0)
    shapes = {value.name: [size or 1 for size in value.shape] for value in session.inputs}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _median(session: Session, image: Inputs) -> float:
    """Microseconds of a run."""
    warm = time.perf_counter() + _WARM_SECONDS
    session.run(image)
    while time.perf_counter() < warm:
        session.run(image)
    taken: list[int] = []
    end = time.perf_counter() + _SECONDS
    while len(taken) < _LEAST or time.perf_counter() < end:
        start = time.perf_counter_ns()
        session.run(image)
        taken.append(time.perf_counter_ns() - start)
    return float(np.median(taken)) / 1e3


def _families(rows: list[Facts]) -> list[Facts]:
    """Steps and share of the time of each family, the largest first."""
    found: dict[str, Facts] = {}
    for row in rows:
        entry = found.setdefault(row["family"], {"family": row["family"], "steps": 0, "share": 0.0})
        entry["steps"] += 1
        entry["share"] += row["share"]
    return sorted(found.values(), key=lambda entry: -entry["share"])
