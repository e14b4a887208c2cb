"""Where the float weights are that a recipe begins with or learns from."""

from __future__ import annotations

from pathlib import Path

from tritkit import models
from tritkit.data import data_roots, find_file


def find_weights(name: str) -> Path:
    """The file that a recipe names: see `find_file` and, for a URL, `models.fetch`. UserError if there is none."""
    if "://" in name:
        return models.fetch(name, [folder / "pretrained" for folder in data_roots()])
    return find_file(name)
