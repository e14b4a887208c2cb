"""Files that a command writes: whole or not at all, and refused before the work where they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

from tritkit.errors import UserError


def check_place(path: Path, *read: Path) -> None:
    """UserError where `path` cannot be written: a folder, a device, in no folder, or a file that the command reads."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of the file to write")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist; create it first")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no plain file; give the name of the file to write")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"the folder {path.parent} cannot be written to; choose another place")
    if any(path.exists() and other.exists() and path.samefile(other) for other in read):
        raise UserError(f"{path} is what is read; give another name to write to")


def write_place(path: Path, data: bytes) -> None:
    """Beside its place first, then in it. UserError where the system refuses."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; choose another place") from error
