"""The run record: JSON lines, only ever appended to. A header, a row an epoch, a final row."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import tritkit
from tritkit.errors import UserError
from tritkit.train.files import told, write_whole
from tritkit.train.recipe import Recipe

Row = dict[str, Any]


class Record:
    """The JSONL file `path`; each row is on the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, header: Row) -> None:
        """Begin anew with `header` as the only row."""
        write_whole(self.path, _line(header))

    def append(self, row: Row) -> None:
        with told(self.path), self.path.open("ab") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def size(self) -> int:
        """Bytes so far; a checkpoint keeps it for `truncate`."""
        return self.path.stat().st_size

    def truncate(self, size: int) -> None:
        """Drop what was written after a checkpoint. UserError if the file is shorter than that."""
        with told(self.path):
            if self.size() < size:
                raise UserError(
                    f"{self.path} is shorter than the checkpoint says; choose another folder and start over"
                )
            os.truncate(self.path, size)

    def rows(self) -> list[Row]:
        """All whole rows."""
        return read_record(self.path)


def read_record(path: str | Path) -> list[Row]:
    """The rows of a run record; a last line cut short by a crash is left out. UserError if it cannot be read."""
    try:
        lines = Path(path).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a run record: {error}") from error


def header(recipe: Recipe, parts: Mapping[str, int]) -> Row:
    """What the run was: the whole recipe, the code, the versions, the machine, and the `parts` it is computed in."""
    return {
        "kind": "header",
        "format": 1,
        "recipe": recipe.model_dump(mode="json"),
        "commit": _commit(),
        "versions": {"tritkit": tritkit.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "hardware": {
            "cpu": _cpu(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
            "system": sys.platform,
        },
        "seed": recipe.seed,
        **parts,
    }


def _line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=True) + "\n").encode()


def _commit() -> str | None:
    """The checkout's commit, with "+" if tracked files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
