"""Two model files, or two training runs, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError
from tritkit.inspection import LayerWeights, inspect_file, read_weights
from tritkit.report.accuracy import Floats, sign_test
from tritkit.report.plan import family, parts
from tritkit.report.timing import noise
from tritkit.report.training import read_run, training_facts
from tritkit.runtime import Session

Facts = dict[str, Any]
_SLICE = 0.03  # seconds that one network runs before the other's turn
_LEAST = 3  # turns of each, and runs in a turn
_LAYER_ROUNDS = 5
_SHOWN = ("kind", "bits", "method", "density", "wp", "wn", "bytes")


def compare_models(a: Path, b: Path, sessions: tuple[Session, Session], seconds: float) -> Facts:
    """Bytes, time and layers of two files; `sessions` are theirs. The networks are timed in turn."""
    paths, both = (a, b), (inspect_file(a), inspect_file(b))
    whole = time_in_turn(sessions, seconds)
    layer_times = [_layer_times(session) for session in sessions] if seconds else [{}, {}]
    sides = [
        {
            "name": path.stem,
            "file": path.name,
            "bytes": found["bytes"],
            "float_ratio": found["totals"]["ratio"],
            "weights": found["totals"]["weights"],
            "density": found["totals"].get("ternary_density"),
            "microseconds": median,
        }
        for path, found, median in zip(paths, both, whole, strict=True)
    ]
    ternary = [{layer.name: layer for layer in read_weights(path) if layer.kind == "ternary"} for path in paths]
    return {
        "kind": "models",
        "a": sides[0],
        "b": sides[1],
        "threads": sessions[0].threads,
        "bytes_ratio": sides[1]["bytes"] / sides[0]["bytes"],
        "time_ratio": whole[1] / whole[0] if whole[0] and whole[1] else None,
        "layers": _layers(both, layer_times, ternary),
    }


def time_in_turn(sessions: tuple[Session, Session], seconds: float) -> list[float | None]:
    """Median microseconds of one image (of noise) in each network: short turns, so that both meet the same machine.

    seconds: for both together; 0 times nothing.
    """
    if seconds <= 0:
        return [None, None]
    inputs = [noise(session) for session in sessions]
    taken: list[list[int]] = [[], []]
    for session, given in zip(sessions, inputs, strict=True):
        session.run(given)
    end, turns = time.perf_counter() + seconds, 0
    while turns < _LEAST or time.perf_counter() < end:
        for i in (0, 1) if turns % 2 == 0 else (1, 0):
            taken[i] += _turn(sessions[i], inputs[i])
        turns += 1
    return [float(np.median(ns)) / 1e3 for ns in taken]


def _turn(session: Session, given: dict[str, NDArray[np.float32]]) -> list[int]:
    session.run(given)  # finds the caches full of the other network
    taken: list[int] = []
    end = time.perf_counter() + _SLICE
    while len(taken) < _LEAST or time.perf_counter() < end:
        start = time.perf_counter_ns()
        session.run(given)
        taken.append(time.perf_counter_ns() - start)
    return taken


def _layer_times(session: Session) -> dict[str, Facts]:
    """Microseconds and kernels' family, by the name of the layer that a step begins with."""
    given = noise(session)
    rounds = [[row.microseconds for row in session.profile(given, 10)] for _ in range(_LAYER_ROUNDS)]
    median = np.median(rounds, axis=0)
    steps = zip(session.summary(), median, strict=True)
    return {parts(step.name)[0]: {"microseconds": float(us), "family": family(step)} for step, us in steps}


def _layers(
    both: tuple[Facts, Facts], times: list[dict[str, Facts]], ternary: list[dict[str, LayerWeights]]
) -> list[Facts]:
    """A row for each layer of either file, in A's order, then what only B has."""
    sides = [{row["name"]: row for row in found["layers"]} for found in both]
    rows = []
    for name in [*sides[0], *(name for name in sides[1] if name not in sides[0])]:
        made: Facts = {"name": name}
        for key, side, timed in zip("ab", sides, times, strict=True):
            row = side.get(name)
            made[key] = None if row is None else {**{k: row[k] for k in _SHOWN}, **_time(timed.get(name))}
        made["same_codes"] = _same(*(layers.get(name) for layers in ternary))
        rows.append(made)
    return rows


def _time(timed: Facts | None) -> Facts:
    return {"microseconds": None, "family": None} if timed is None else timed


def _same(a: LayerWeights | None, b: LayerWeights | None) -> float | None:
    """Share of equal codes, where both are ternary and of one shape."""
    if a is None or b is None or a.values.shape != b.values.shape:
        return None
    return float((a.values == b.values).mean())


def agreement_facts(logits: Sequence[Floats], labels: NDArray[np.int64]) -> Facts:
    """What two networks say of the same images, by their logits [N, K]. UserError for different numbers of classes."""
    a, b = logits
    if a.shape != b.shape:
        raise UserError(f"A has {a.shape[1]} classes, B {b.shape[1]}; compare networks of one task")
    says = [a.argmax(1), b.argmax(1)]
    right = [guess == labels for guess in says]
    only = [int((right[i] & ~right[1 - i]).sum()) for i in (0, 1)]
    return {
        "images": len(labels),
        "a_error": float(1 - right[0].mean()),
        "b_error": float(1 - right[1].mean()),
        "agree": float((says[0] == says[1]).mean()),
        "only_a_right": only[0],
        "only_b_right": only[1],
        "neither_right": int((~right[0] & ~right[1]).sum()),
        "chance": sign_test(*only),
        "largest_logit_difference": float(np.abs(a - b).max()),
        "same_bits": bool(np.array_equal(a, b)),
    }


def compare_runs(a: Path, b: Path) -> Facts:
    """Two run records: results, what differs in their recipes, and layers at their ends."""
    rows = [read_run(path) for path in (a, b)]
    names = [list(dict.fromkeys(name for row in side for name in _table(row.get("layers")))) for side in rows]
    found = [training_facts(*each) for each in zip(rows, names, (a, b), strict=True)]
    layers = [{row["name"]: row for row in side["layers"]} for side in found]
    keys = ("wp", "wn", "threshold", "density")
    return {
        "kind": "runs",
        **{key: _run(side, path) for key, side, path in zip("ab", found, (a, b), strict=True)},
        "differences": _differences(*(_recipe(side) for side in rows)),
        "layers": [
            {
                "name": name,
                **{
                    side: {key: own[name][f"{key}_last"] for key in keys} if name in own else None
                    for side, own in zip("ab", layers, strict=True)
                },
            }
            for name in dict.fromkeys(name for own in layers for name in own)
        ],
    }


def _run(found: Facts, path: Path) -> Facts:
    last = {key: next((v for v in reversed(found[key]) if v is not None), None) for key in ("loss", "train_error")}
    name = (path if path.is_dir() else path.parent).name
    kept = {key: found[key] for key in ("recipe", "network", "method", "seed", "hours", "test_error", "test_images")}
    return {"name": name, **kept, "epochs": len(found["epochs"]), **last}


def _recipe(rows: list[Facts]) -> Facts:
    return _flat(_table(_table(next((row for row in rows if row.get("kind") == "header"), None)).get("recipe")))


def _flat(table: Facts, before: str = "") -> Facts:
    """Nested tables as one, with dots in the keys."""
    made: Facts = {}
    for key, value in table.items():
        made |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return made


def _differences(a: Facts, b: Facts) -> list[Facts]:
    keys = [*a, *(key for key in b if key not in a)]
    return [{"key": key, "a": a.get(key), "b": b.get(key)} for key in keys if a.get(key) != b.get(key)]


def _table(value: Any) -> Facts:
    return value if isinstance(value, dict) else {}
