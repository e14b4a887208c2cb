"""Writing so that a file is whole or absent, whatever happens; and saying plainly when it cannot be done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritkit.errors import UserError


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name, flush it to the disk, rename it to `path`. UserError if that fails."""
    scratch = path.with_name(path.name + ".tmp")
    with told(path):
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing `path` into a UserError of one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free or choose another folder, and start again to resume"
        ) from error


def _sync_folder(folder: Path) -> None:
    """The rename itself must reach the disk too (POSIX; elsewhere a folder cannot be opened)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
