"""The classes of ImageNet's validation pictures as they are published: all in one folder, their classes in a table.

    ImageId,PredictionString
    ILSVRC2012_val_00048981,n03995372 85 1 499 272

The table comes with the pictures on Kaggle; what follows a class are the corners of a box, then perhaps further ones.
"""

from __future__ import annotations

import csv
from pathlib import Path

from tritkit.errors import UserError

NAME = "LOC_val_solution.csv"
_COLUMNS = ("ImageId", "PredictionString")
_LEVELS = 4  # from ILSVRC/Data/CLS-LOC/val up to where Kaggle's archive has it


def find_val_labels(folder: Path) -> Path | None:
    """The table for the pictures of `folder`, in one of the folders that it lies in."""
    above = list(folder.absolute().parents)[:_LEVELS]
    return next((base / NAME for base in above if (base / NAME).is_file()), None)


def read_val_labels(path: Path) -> dict[str, str]:
    """From names of pictures, without suffix, to their classes. UserError if the table cannot be read or is another."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    labels = {}
    for number, row in enumerate(rows, 2):
        name, classes = ((row.get(column) or "").split() for column in _COLUMNS)
        if not name or not classes:
            raise UserError(f"line {number} of {path} is {row}; expected are the columns {' and '.join(_COLUMNS)}")
        labels[name[0]] = classes[0]
    return labels
