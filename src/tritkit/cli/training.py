"""`tritkit train`: run a recipe."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say, talk
from tritkit.cli.recipes import find_recipe


class BadPictures(StrEnum):
    """What becomes of files that cannot be read as pictures."""

    refuse = "refuse"
    skip = "skip"


def command(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or a name of `tritkit recipes ls`.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of CIFAR-10 or ImageNet; default: $TRITKIT_DATA or ./data.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default runs/<name>.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="key=value, as in lr=0.05; repeatable.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on with a run in the folder, or refuse such a folder.")
    ] = True,
    accumulate: Annotated[int, typer.Option(min=1, help="Compute each batch in so many parts, to save memory.")] = 1,
    shard: Annotated[
        bool, typer.Option("--shard", help="Each process keeps its part of the weights only, to save memory.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, max=256, help="Processes that decode pictures; default: one a core.")
    ] = None,
    bad_pictures: Annotated[
        BadPictures, typer.Option(help="Files that cannot be read: refuse them, or skip and name them.")
    ] = BadPictures.refuse,
    as_json: Json = False,
) -> None:
    """Train a network as a recipe says. A run that was stopped goes on where it was.

    On many GPUs or processes: torchrun --nproc-per-node N -m tritkit train RECIPE --data DIR
    """
    path = find_recipe(recipe)
    from tritkit.train import load_recipe, train

    chosen = load_recipe(path, change or [])
    folder = out or Path("runs") / chosen.name
    first = os.environ.get("RANK", "0") == "0"
    if first:
        talk(f"{chosen.name}: {chosen.model}, {chosen.epochs} epochs, into {folder}")
    result = train(
        chosen,
        data,
        folder,
        resume,
        accumulate=accumulate,
        shard=shard,
        workers=workers,
        bad_pictures=bad_pictures.value,
    )
    facts = {
        "name": chosen.name,
        "test_error": result.test_error,
        **({"test_top5_error": result.test_top5_error} if result.test_top5_error is not None else {}),
        **({"trained_on_test": True} if result.trained_on_test else {}),
        "weights": str(result.weights),
        "record": str(result.record),
    }
    if first:
        emit(facts, as_json, _render)


def _render(facts: Facts, console: Console) -> None:
    top5 = f", among five guesses {percent(facts['test_top5_error'], 2)}" if "test_top5_error" in facts else ""
    where = " on the training images, for want of a folder val" if "trained_on_test" in facts else ""
    say(console, f"test error {percent(facts['test_error'], 2)}{top5}{where}")
    say(console, f"weights {facts['weights']}\nrecord  {facts['record']}")
    say(console, f"Next: tritkit export {facts['weights']} -o {facts['name']}.onnx")
