"""What `tritkit inspect --weights LAYER` shows: one layer's integers and scales."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tritkit.cli.output import Facts, percent, say

if TYPE_CHECKING:
    from tritkit.inspection import LayerWeights

_SIGNS = {-1: "−", 0: "·", 1: "+"}
_FILTERS = 8  # shown


def weight_facts(layer: LayerWeights, path: Path) -> Facts:
    """Integers and scales as nested lists, and what they mean."""
    from tritkit.inspection.saving import arrays

    values = {name: array.tolist() for name, array in arrays(layer).items()}
    return {
        "file": str(path),
        "layer": layer.name,
        "op": layer.op,
        "kind": layer.kind,
        "method": layer.method,
        "shape": list(layer.values.shape),
        "group_size": layer.group_size,
        "density": layer.density,
        **values,
    }


def render_weights(facts: Facts, console: Console) -> None:
    """The first filters, one a line, and where the rest can be had."""
    sides = "×".join(map(str, facts["shape"]))
    say(console, f"{facts['layer']}: {facts['kind']} {sides}, {percent(facts['density'])} not zero")
    if "codes" in facts:
        say(console, "weight = scale · plus where the code is +, −scale · minus where it is −")
        _range(console, facts, "plus", "minus", "scale")
        _filters(console, facts["codes"], "".join, _SIGNS.__getitem__)
    else:
        say(console, "weight = scale · value")
        _range(console, facts, "scale")
        _filters(console, facts["values"], " ".join, lambda v: f"{v:.4g}" if isinstance(v, float) else str(v))
    if "saved" in facts:
        say(console, f"saved: {facts['saved']}")
    elif facts["shape"]:
        say(console, "all of it: --json, or --out FILE.npz, or --out FILE.h")


def _range(console: Console, facts: Facts, *names: str) -> None:
    for name in names:
        flat = _flat(facts[name])
        low, high = min(flat), max(flat)
        text = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
        say(console, f"  {name}: {text} ({len(flat)} value{'s' if len(flat) > 1 else ''})")


def _filters(console: Console, rows: list[Any], join: Any, show: Any) -> None:
    for i, row in enumerate(rows[:_FILTERS]):
        text = f"{i:4d}  " + join(show(v) for v in _flat(row)[: console.width])
        console.print(text[: console.width], markup=False, no_wrap=True, soft_wrap=False)
    if len(rows) > _FILTERS:
        say(console, f"      … {len(rows) - _FILTERS} more filters")


def _flat(values: Any) -> list[Any]:
    return [v for item in values for v in _flat(item)] if isinstance(values, list) else [values]
