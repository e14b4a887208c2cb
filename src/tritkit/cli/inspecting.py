"""`tritkit inspect`: what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say, table

_SHOWN = 60  # characters of a metadata value in the table; JSON has all of it


def command(
    file: Annotated[Path, typer.Argument(help="An .onnx or .safetensors file.")],
    as_json: Json = False,
) -> None:
    """Show the layers of a model file.

    Bits, share of non-zero weights, scales and bytes of each. Needs neither torch nor onnx.
    """
    from tritkit.inspection import inspect_file

    emit(inspect_file(file), as_json, _render)


def _render(facts: Facts, console: Console) -> None:
    if facts["layers"]:
        grouped = any(row.get("group_size") for row in facts["layers"])
        columns = ["layer", "kind/bits", "method", "shape", *(["group"] if grouped else [])]
        columns += ["density", "Wp", "Wn", "bytes"]
        console.print(table(columns, [_layer(row, grouped) for row in facts["layers"]], left=4))
    elif facts["tensors"]:
        rows = [[t["name"], t["dtype"], _shape(t["shape"]), t["bytes"]] for t in facts["tensors"]]
        console.print(table(["tensor", "type", "shape", "bytes"], rows, left=3))
    console.print()
    totals = facts["totals"]
    facts_line = f"{facts['format']}, {facts['bytes']:,} bytes; as float32 {totals['float_bytes']:,} bytes"
    say(console, f"{facts['file']}: {facts_line}, {totals['ratio']:.1f} times as much")
    if totals.get("ternary_density") is not None:
        share = percent(totals["ternary_density"])
        say(console, f"ternary weights: {totals['ternary_weights']:,}, of which {share} are not zero")
    inputs = {f"input {key}": value for key, value in facts.get("input", {}).items()}
    for key, value in [*facts["metadata"].items(), *inputs.items()]:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        say(console, f"{key}: {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}")


def _layer(row: dict[str, Any], grouped: bool) -> list[Any]:
    """A line of the table; `grouped` adds the number of input channels that share a scale."""
    kind = row["kind"] if row["bits"] is None else f"{row['kind']}/{row['bits']}"
    names = [row["name"], kind, row["method"], _shape(row["shape"])]
    names += [row.get("group_size")] if grouped else []
    return [*names, percent(row["density"]), _scale(row["wp"]), _scale(row["wn"]), row["bytes"]]


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _scale(value: float | list[float] | None) -> str | None:
    """A scale, or the range of many."""
    if isinstance(value, list):
        return f"{min(value):.3g}…{max(value):.3g}"
    return None if value is None else f"{value:.4g}"
