"""`tritkit methods`: the ways to make weights ternary."""

from __future__ import annotations

import dataclasses
import inspect
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
        rows = [_row(each, methods.method_class(each)) for each in methods.names()]
        emit({"methods": rows}, as_json, _render_all)
        return
    method = methods.method_class(name)
    facts = {**_row(name, method), "parameters": _parameters(method), "text": inspect.getdoc(method) or ""}
    emit(facts, as_json, _render_one)


def _row(name: str, method: Any) -> Facts:
    return {"name": name, "class": method.__name__, "summary": method.summary, "paper": method.paper}


def _parameters(method: Any) -> dict[str, Any]:
    """Field → default; null for one that must be given."""
    fields = dataclasses.fields(method)
    return {f.name: None if f.default is dataclasses.MISSING else f.default for f in fields}


def _render_all(facts: Facts, console: Console) -> None:
    rows = [[row["name"], row["summary"]] for row in facts["methods"]]
    console.print(table(["method", "formula"], rows, left=2))
    console.print("\ntritkit methods NAME shows one with its parameters and paper.")


def _render_one(facts: Facts, console: Console) -> None:
    say(console, f"{facts['name']} (tritkit.methods.{facts['class']})", facts["paper"], "")
    console.print(table(["parameter", "default"], [[k, repr(v)] for k, v in facts["parameters"].items()], left=2))
    console.print()
    say(console, facts["text"])
