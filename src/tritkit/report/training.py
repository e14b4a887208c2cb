"""What a run record and its weights say: Wp, Wn and density over the epochs, latents with their thresholds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError

Facts = dict[str, Any]
_BINS = 24  # of a histogram, each side of zero, about
_SPREAD = 3.0  # standard deviations that it shows each side
_MILESTONES = 12  # epochs in the table of loss and errors
_FEWEST_SHARED = 0.5  # of the record's layers that a network must have to be that of the run


def read_run(path: Path) -> list[Facts]:
    """The rows of a run record, or of the record in a run's folder; a last line cut short is left out.

    Raises UserError where it is missing, is no record, or holds no epoch.
    """
    path = path / "record.jsonl" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
    except OSError as error:
        raise UserError(f"no run record {path} ({error.strerror}); give a run's folder or its record.jsonl") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no run record ({error}); give the record.jsonl of tritkit train") from error
    if not all(isinstance(row, dict) for row in rows) or not any(row.get("kind") == "epoch" for row in rows):
        raise UserError(f"{path} holds no epoch of a run; give the record.jsonl of tritkit train")
    return rows


def training_facts(rows: list[Facts], names: list[str], source: Path) -> Facts:
    """Series over the epochs.

    names: the network's layers. Raises UserError where the record is of another network.
    """
    epochs = [row for row in rows if row.get("kind") == "epoch"]
    recorded = {name for row in epochs for name in _table(row.get("layers"))}
    shared = [name for name in names if name in recorded]
    if recorded and len(shared) < _FEWEST_SHARED * len(recorded):
        known = ", ".join(sorted(recorded)[:3])
        raise UserError(f"{source} is the record of another network (its layers: {known}, …); give this one's")
    recipe = _table(next((row for row in rows if row.get("kind") == "header"), {}).get("recipe"))
    final = [row for row in rows if row.get("kind") == "final"]
    last = final[-1] if final else {}
    return {
        "recipe": _text(recipe.get("name")),
        "network": _text(recipe.get("model")),
        "method": _text(_table(recipe.get("method")).get("name")),
        "seed": recipe.get("seed") if isinstance(recipe.get("seed"), int) else None,
        "epochs": [int(row["epoch"]) for row in epochs if isinstance(row.get("epoch"), int)],
        **{key: [_number(row.get(key)) for row in epochs] for key in ("loss", "train_error", "held_out_error")},
        "milestones": _milestones(epochs),
        "hours": sum(_number(row.get("seconds")) or 0.0 for row in epochs) / 3600,
        "test_error": _number(last.get("test_error")),
        "test_images": last.get("test_images") if isinstance(last.get("test_images"), int) else None,
        "notes": [str(row.get("text")) for row in rows if row.get("kind") == "note"],
        "layers": [_series(name, epochs, last) for name in shared],
    }


def _milestones(epochs: list[Facts]) -> list[Facts]:
    """Some epochs at even distances, the first and the last among them, for a table."""
    chosen = np.linspace(0, len(epochs) - 1, min(len(epochs), _MILESTONES)).round().astype(int)
    rows = [epochs[i] for i in chosen]
    keys = ("loss", "train_error", "held_out_error")
    return [
        {
            "epoch": row["epoch"] if isinstance(row.get("epoch"), int) else None,
            **{key: _number(row.get(key)) for key in keys},
        }
        for row in rows
    ]


def _series(name: str, epochs: list[Facts], last: Facts) -> Facts:
    cells = [_table(_table(row.get("layers")).get(name)) for row in epochs]
    end = _table(_table(last.get("layers")).get(name))
    made: Facts = {"name": name}
    for key in ("wp", "wn", "density", "threshold"):
        made[key] = [_number(cell.get(key)) for cell in cells]
        known = [value for value in made[key] if value is not None]
        made[f"{key}_first"] = known[0] if known else None
        ended = _number(end.get(key))
        made[f"{key}_last"] = ended if ended is not None else known[-1] if known else None
    return made


def pruned_layers(rows: list[Facts]) -> dict[str, Facts]:
    """`density` by layer, the last of a record; with `bits_conv` and `bits_fc` where its recipe shares weights."""
    recipe = _table(next((row for row in rows if row.get("kind") == "header"), {}).get("recipe"))
    shared = _table(recipe.get("deep_compression"))
    widths = {key: shared[key] for key in ("bits_conv", "bits_fc") if isinstance(shared.get(key), int)}
    found: dict[str, Facts] = {}
    for row in rows:
        for name, cell in _table(row.get("layers")).items():
            value = _number(_table(cell).get("density"))
            if value is not None:
                found[name] = {"density": value, **widths}
    return found


def latent_file(run: Path) -> Path | None:
    """The weights of the run, where they lie beside its record."""
    path = (run if run.is_dir() else run.parent) / "final.safetensors"
    return path if path.is_file() else None


def latent_facts(path: Path, training: Facts) -> list[Facts]:
    """A histogram of each layer's latent weights, with the threshold of the run. UserError for an unreadable file."""
    from safetensors import SafetensorError, safe_open

    made = []
    try:
        with safe_open(path, framework="np") as file:
            keys = set(file.keys())
            for row in training["layers"]:
                key = f"{row['name']}.parametrizations.weight.original"
                if key in keys and row["threshold_last"] is not None:
                    latents = file.get_tensor(key)
                    if latents.size and np.isfinite(latents).all():
                        made.append({"name": row["name"], **histogram(latents.ravel(), row["threshold_last"])})
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no readable safetensors file ({error}); move it away or train again") from error
    return made


def histogram(latents: NDArray[Any], threshold: float) -> Facts:
    """Counts of equal bins whose edges meet ±threshold where that leaves enough of them.

    Bins reach 3 standard deviations (less where no latent is so large); `outside` counts the latents beyond.
    """
    values = latents.astype(np.float64)
    largest = float(np.abs(values).max())
    reach = min(largest, max(_SPREAD * float(values.std()), 1.5 * threshold)) or 1.0
    width = reach / _BINS
    if threshold >= width:
        width = threshold / round(threshold / width)
    bins = min(math.ceil(reach / width - 1e-9), 4 * _BINS)
    edge = bins * width
    counts, _ = np.histogram(values, 2 * bins, (-edge, edge))
    return {
        "threshold": threshold,
        "low": -edge,
        "high": edge,
        "width": width,
        "counts": [int(count) for count in counts],
        "latents": int(values.size),
        "outside": int(np.count_nonzero(np.abs(values) > edge)),
        "below": int(np.count_nonzero(values < -threshold)),
        "within": int(np.count_nonzero(np.abs(values) <= threshold)),
        "above": int(np.count_nonzero(values > threshold)),
        "deviation": float(values.std()),
    }


def _table(value: Any) -> Facts:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    """A finite number, or the mean of a list of them (scales a channel or group)."""
    if isinstance(value, list):
        parts = [_number(item) for item in value]
        known = [part for part in parts if part is not None]
        return sum(known) / len(known) if known else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None
