"""`tritkit inspect`: what is in a model file."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say, table
from tritkit.cli.running import file_of
from tritkit.cli.weights import render_weights, weight_facts
from tritkit.cli.writing import check_place, write_place
from tritkit.errors import UserError

if TYPE_CHECKING:
    from tritkit.inspection import LayerWeights

_SHOWN = 60  # characters of a metadata value in the table; JSON has all of it


def command(
    file: Annotated[str, typer.Argument(help="An .onnx or .safetensors file, a run's folder or checkpoint.pt.")],
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="LAYER", help="Show this layer's integers and scales.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Save them: .npz for NumPy, .h for C. Needs --weights.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the layers of a model file, or the weights of one.

    Bits, share of non-zero weights, scales and bytes of each. Also of files of other tools: ternary weights among them
    are recognised. ONNX files need neither torch nor onnx.
    """
    from tritkit.inspection import inspect_file, read_weights

    path = file_of(file)
    if weights is None:
        if out is not None:
            raise UserError("--out saves one layer; name it: --weights LAYER")
        emit(inspect_file(path), as_json, _render)
        return
    layer = _named(read_weights(path), weights, path)
    facts = weight_facts(layer, path)
    if out is not None:
        from tritkit.inspection.saving import written

        data = written(layer, out)
        check_place(out, path)
        write_place(out, data)
        facts["saved"] = str(out)
    emit(facts, as_json, render_weights)


def _named(layers: list[LayerWeights], name: str, path: Path) -> LayerWeights:
    found = next((layer for layer in layers if layer.name == name), None)
    if found is not None:
        return found
    names = [layer.name for layer in layers]
    near = get_close_matches(name, names, n=3) or names[:8]
    raise UserError(f"{path} has no layer {name!r} with weights; it has {', '.join(near) or 'none'}")


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
