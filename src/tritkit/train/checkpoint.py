"""Checkpoints: everything a run needs to go on to the same bits, in one file that is whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from tritkit.errors import UserError
from tritkit.train.files import write_whole
from tritkit.train.recipe import Recipe

State = dict[str, Any]  # tensors, numbers, strings, lists and dictionaries only: what weights_only=True admits


def save_checkpoint(path: Path, state: State) -> None:
    """Write `state` to `path`, atomically. UserError if the disk is full or the folder cannot be written."""
    buffer = io.BytesIO()  # so that a full disk is an OSError with its reason, not a broken zip
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, recipe: Recipe) -> State | None:
    """The state at `path`, None if there is none. Runs no code from the file.

    UserError if it is damaged or belongs to another recipe: the keys that differ are named.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        saved = Recipe.model_validate(state["recipe"]).model_dump(mode="json")  # it may be older than some keys
    except Exception as error:  # a damaged file fails in many ways, all of them the file's fault
        what = type(error).__name__
        raise UserError(f"{path} is not a whole checkpoint ({what}); remove it to start over") from error
    now = recipe.model_dump(mode="json")
    differing = sorted(key for key in now.keys() | saved.keys() if now.get(key) != saved.get(key))
    if differing:
        raise UserError(
            f"{path} belongs to a run with other values of {', '.join(differing)}; choose another output folder"
        )
    return dict(state)
