"""The sentence that a manager reads: only what was measured, and how to get the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tritkit.errors import UserError
from tritkit.report.shown import plain

Facts = dict[str, Any]
_CHANCE = 0.1  # of the sign test: a difference as likely as this between equal networks is called chance


def verdict_facts(facts: Facts, missing: list[Facts]) -> Facts:
    """The sentence as text, and what was not measured with the way to get it."""
    return {"sentence": plain(sentence(facts), facts), "missing": missing}


def sentence(facts: Facts) -> str:
    """A template for `shown.pieces`."""
    clauses = [*_size(facts), *_speed(facts), *_accuracy(facts)]
    last = (", and " if len(clauses) > 2 else " and ") if len(clauses) > 1 else ""
    head = ", ".join(clauses[:-1]) + last + clauses[-1]
    return "{model.name} " + head + "."


def _size(facts: Facts) -> list[str]:
    sizes = "({sizes.bytes|bytes} instead of {sizes.float_bytes|bytes})"
    if facts["sizes"]["ratio"] < 1.05:
        return ["is no smaller than as float32 " + sizes]
    return ["is {sizes.ratio|times} times smaller than as float32 " + sizes]


def _speed(facts: Facts) -> list[str]:
    if facts["speed"] is None:
        return _own_time(facts)
    words: list[str] = []
    for family in ("float", "int8"):
        if facts["speed"][family] is not None:
            place = f"{{speed.{family}.times|times2}} times as fast as {{speed.{family}.engine}}"
            words.append(place if words else f"runs {place}")
    return [" and ".join(words)] if words else []


def _own_time(facts: Facts) -> list[str]:
    """Where nothing was timed beside it: how long it takes, not how much faster it is."""
    if facts["times"] is None:
        return []
    threads = "thread" if facts["times"]["threads"] == 1 else "threads"
    return [f"takes {{times.microseconds|time}} an image on {{times.threads|count}} {threads} of this machine"]


def _accuracy(facts: Facts) -> list[str]:
    found, training = facts["accuracy"], facts["training"]
    if found is None:
        if training is None or training["test_error"] is None:
            return []
        return ["is wrong on {training.test_error|percent2} of the test images by its training record"]
    if "float_error" not in found:
        return ["is wrong on {accuracy.error|percent2} of {accuracy.images|count} images"]
    errors = (
        "({accuracy.error|percent2} of {accuracy.images|count} images wrong instead of {accuracy.float_error|percent2}"
        + (", a difference within chance)" if found["chance"] >= _CHANCE and found["lost"] else ")")
    )
    if found["lost"] > 0:
        return ["loses {accuracy.lost|points2} points of accuracy " + errors]
    if found["lost"] < 0:
        return ["gains {accuracy.gained|points2} points of accuracy " + errors]
    return ["keeps its accuracy " + errors]


def read_bench(path: Path, file_bytes: int) -> Facts:
    """The first batch size of what `tritkit bench MODEL -o FILE` wrote.

    Raises UserError for another file, or the bench of another network.
    """
    again = "make it with tritkit bench MODEL.onnx -o bench.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        cell = found["cells"][0]
        rows = [_row(row) for row in cell["rows"] if row["status"] == "timed"]
        ours = next(row for row in rows if row["engine"] == "tritkit")
        made = {"batch": int(cell["batch"]), "threads": int(cell["threads"]), "cpu": str(found["machine"]["cpu"])}
    except OSError as error:
        raise UserError(f"no bench {path} ({error.strerror}); {again}") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise UserError(f"{path} is no whole bench of tritkit; {again}") from error
    if ours["file_bytes"] != file_bytes:
        given = f"{path} is the bench of a file of {ours['file_bytes']:,} bytes"
        raise UserError(f"{given}, this one has {file_bytes:,}; {again}")
    return {**made, "rows": rows, "ours_ms": ours["median_ms"]} | {
        key: _fastest(rows, key) for key in ("float", "int8")
    }


def _row(row: Facts) -> Facts:
    made: Facts = {"engine": str(row["engine"]), "family": str(row["family"]), "file_bytes": int(row["file_bytes"])}
    made |= {key: float(row[key]) for key in ("median_ms", "p10_ms", "p90_ms", "ratio")}
    if not all(0 < made[key] < 1e9 for key in ("median_ms", "p10_ms", "p90_ms", "ratio")):
        raise ValueError("times must be above 0")
    return made | {"times": 1 / made["ratio"]}


def _fastest(rows: list[Facts], family: str) -> Facts | None:
    own = [row for row in rows if row["family"] == family]
    return min(own, key=lambda row: float(row["median_ms"]), default=None)
