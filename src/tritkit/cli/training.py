"""`tritkit train`: run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say, talk
from tritkit.cli.recipes import find_recipe


def command(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or a name of `tritkit recipes ls`.")],
    data: Annotated[Path | None, typer.Option(help="Folder of CIFAR-10; default: $TRITKIT_DATA or ./data.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default runs/<name>.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="key=value, as in lr=0.05; repeatable.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on with a run in the folder, or refuse such a folder.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Train a network as a recipe says. A run that was stopped goes on where it was."""
    path = find_recipe(recipe)
    from tritkit.train import load_recipe, train

    chosen = load_recipe(path, change or [])
    folder = out or Path("runs") / chosen.name
    talk(f"{chosen.name}: {chosen.model}, {chosen.epochs} epochs, into {folder}")
    result = train(chosen, data, folder, resume=resume)
    facts = {
        "name": chosen.name,
        "test_error": result.test_error,
        "weights": str(result.weights),
        "record": str(result.record),
    }
    emit(facts, as_json, _render)


def _render(facts: Facts, console: Console) -> None:
    say(console, f"test error {percent(facts['test_error'], 2)}")
    say(console, f"weights {facts['weights']}\nrecord  {facts['record']}")
    say(console, f"Next: tritkit export {facts['weights']} -o {facts['name']}.onnx")
