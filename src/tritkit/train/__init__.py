"""Training: a recipe, one loop for every method, checkpoints, a record of the run."""

from __future__ import annotations

from tritkit.train.evaluate import evaluate
from tritkit.train.loop import RunResult, train, train_on
from tritkit.train.network import load_trained
from tritkit.train.progress import ConsoleReporter, Reporter, Silent
from tritkit.train.recipe import Recipe, load_recipe, make_recipe
from tritkit.train.record import read_record

__all__ = [
    "ConsoleReporter",
    "Recipe",
    "Reporter",
    "RunResult",
    "Silent",
    "evaluate",
    "load_recipe",
    "load_trained",
    "make_recipe",
    "read_record",
    "train",
    "train_on",
]
