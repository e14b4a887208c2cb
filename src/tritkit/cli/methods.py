"""`tritkit methods`: the ways to make weights ternary, and what the papers have beside them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Annotated, Any, get_args

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, say, table

BESIDE: tuple[Facts, ...] = (
    {
        "name": "deep-compression",
        "module": "tritkit.compress",
        "table": "deep_compression",
        "summary": "w → 0 where |w| ≤ q·σ, or a share of the smallest;  kept w → c[index] by k-means, then "
        "dL/dcₖ = Σ g of index k;  Huffman codes of indices and gaps",
        "paper": "Han, Mao, Dally 2015, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained "
        "Quantization and Huffman Coding, https://arxiv.org/abs/1510.00149",
        "file": "a file of its own",
    },
    {
        "name": "dorefa-low-bit",
        "module": "tritkit.low_bit",
        "table": "dorefa",
        "summary": "w as dorefa;  a → quantize(clip(a, 0, 1), k);  "
        "g → 2m·(quantize(clip(g/2m + 1/2 + N, 0, 1), k) − 1/2), m = max|g| of a sample, N = U(−1/2, 1/2)/(2^k − 1)",
        "paper": "Zhou, Wu, Ni, Zhou, Wen, Zou 2016, DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks "
        "with Low Bitwidth Gradients, https://arxiv.org/abs/1606.06160",
        "file": "as dorefa where activations have 32 bits, else none",
    },
)
"""Not a `method` of recipes: each has a table of its own there, and a module whose docstring is the specification."""


def command(
    name: Annotated[str | None, typer.Argument(help="A method, such as ttq; none lists all.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or show one.

    Its formula, parameters with their defaults, and paper.
    """
    from tritkit import methods

    if name is None:
        emit({"methods": all_methods(), "beside": all_beside()}, as_json, _render_all)
        return
    for row in all_beside():
        if row["name"] == name:
            text = inspect.getdoc(importlib.import_module(row["module"])) or ""
            emit({**row, "text": text}, as_json, _render_one)
            return
    method = methods.method_class(name)
    facts = {**_row(name, method), "text": inspect.getdoc(method) or ""}
    emit(facts, as_json, _render_one)


def all_methods() -> list[Facts]:
    """What is told of each method; docs/methods.md is made of it too."""
    from tritkit import methods

    return [_row(name, methods.method_class(name)) for name in methods.names()]


def all_beside() -> list[Facts]:
    """`BESIDE` with the fields of the recipe's table: field → default; null for one without."""
    from pydantic_core import PydanticUndefined

    from tritkit.train.recipe import Recipe

    rows = []
    for row in BESIDE:
        (table, _) = get_args(Recipe.model_fields[row["table"]].annotation)
        fields = {name: field.get_default() for name, field in table.model_fields.items()}
        rows.append({**row, "parameters": {name: None if v is PydanticUndefined else v for name, v in fields.items()}})
    return rows


def clauses(summary: str) -> list[str]:
    """The formulas of a summary, which semicolons divide."""
    return [clause.strip() for clause in summary.split(";")]


def defaults(row: Facts) -> str:
    """The fields of a method as in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in row["parameters"].items())


def _row(name: str, method: Any) -> Facts:
    facts = {"name": name, "class": method.__name__, "summary": method.summary, "paper": method.paper}
    return {**facts, "parameters": _parameters(method)}


def _parameters(method: Any) -> dict[str, Any]:
    """Field → default; null for one that must be given."""
    fields = dataclasses.fields(method)
    return {f.name: None if f.default is dataclasses.MISSING else f.default for f in fields}


def _render_all(facts: Facts, console: Console) -> None:
    for title, key in (("method", "methods"), ("beside the methods", "beside")):
        rows = [[row["name"], "\n".join(_lines(row))] for row in facts[key]]
        console.print(table([title, "formula, defaults, paper"], rows, left=2))
    console.print("tritkit methods NAME shows one in full.")


def _lines(row: Facts) -> list[str]:
    return [*clauses(row["summary"]), *filter(None, [defaults(row)]), _short(row["paper"]), ""]


def _short(paper: str) -> str:
    """Authors, year and link, without the title between them."""
    found = re.fullmatch(r"(.*? \d{4}), .*(https://\S+)", paper)
    return ", ".join(found.groups()) if found else paper


def _render_one(facts: Facts, console: Console) -> None:
    say(console, f"{facts['name']} ({_where(facts)})", facts["paper"], "")
    console.print(table(["parameter", "default"], [[k, repr(v)] for k, v in facts["parameters"].items()], left=2))
    console.print()
    say(console, facts["text"])


def _where(facts: Facts) -> str:
    if "class" in facts:
        return f"tritkit.methods.{facts['class']}"
    return f"{facts['module']}, in a recipe the table [{facts['table']}]"
