"""The command line. `main` is the entry point `tritkit`; each command lives in a file of its own."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main(arguments: list[str] | None = None) -> None:
    """Run `tritkit` with `arguments` (default: the process's) and leave with its exit code: 0, 1, 2 or 130."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"tritkit: the command line needs {' and '.join(missing)}; pip install 'tritkit[train]'\n")
        sys.exit(1)
    from tritkit.cli.app import run_app

    sys.exit(run_app(sys.argv[1:] if arguments is None else arguments))
