"""Training: a recipe, one loop for every method, checkpoints, a record of the run."""

from __future__ import annotations

from tritkit.train.evaluate import Errors, count_errors, evaluate
from tritkit.train.images import crop_sizes
from tritkit.train.loop import RunResult, train, train_on
from tritkit.train.network import load_trained, trained_classes
from tritkit.train.progress import ConsoleReporter, Reporter, Silent
from tritkit.train.recipe import Recipe, load_recipe, make_recipe
from tritkit.train.record import read_record

__all__ = [
    "ConsoleReporter",
    "Errors",
    "Recipe",
    "Reporter",
    "RunResult",
    "Silent",
    "count_errors",
    "crop_sizes",
    "evaluate",
    "load_recipe",
    "load_trained",
    "make_recipe",
    "read_record",
    "train",
    "train_on",
    "trained_classes",
]
