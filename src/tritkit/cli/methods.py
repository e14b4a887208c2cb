"""`tritkit methods`: the ways to make weights ternary."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Annotated, Any

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, say, table


def command(
    name: Annotated[str | None, typer.Argument(help="A method, such as ttq; none lists all.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or show one.

    Its formula, parameters with their defaults, and paper.
    """
    from tritkit import methods

    if name is None:
        emit({"methods": all_methods()}, as_json, _render_all)
        return
    method = methods.method_class(name)
    facts = {**_row(name, method), "text": inspect.getdoc(method) or ""}
    emit(facts, as_json, _render_one)


def all_methods() -> list[Facts]:
    """What is told of each method; docs/methods.md is made of it too."""
    from tritkit import methods

    return [_row(name, methods.method_class(name)) for name in methods.names()]


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
    rows = [[row["name"], "\n".join(_lines(row))] for row in facts["methods"]]
    console.print(table(["method", "formula, defaults, paper"], rows, left=2))
    console.print("tritkit methods NAME shows one in full.")


def _lines(row: Facts) -> list[str]:
    return [*clauses(row["summary"]), *filter(None, [defaults(row)]), _short(row["paper"]), ""]


def _short(paper: str) -> str:
    """Authors, year and link, without the title between them."""
    found = re.fullmatch(r"(.*? \d{4}), .*(https://\S+)", paper)
    return ", ".join(found.groups()) if found else paper


def _render_one(facts: Facts, console: Console) -> None:
    say(console, f"{facts['name']} (tritkit.methods.{facts['class']})", facts["paper"], "")
    console.print(table(["parameter", "default"], [[k, repr(v)] for k, v in facts["parameters"].items()], left=2))
    console.print()
    say(console, facts["text"])
