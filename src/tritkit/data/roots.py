"""Where data is looked for when nobody says: $TRITKIT_DATA, ./data, then ../shared/data beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

from tritkit.errors import UserError

_CHECKOUT = Path(__file__).resolve().parents[3]


def data_roots() -> list[Path]:
    """The folders that may hold data, in the order they are searched; they need not exist."""
    named = os.environ.get("TRITKIT_DATA")
    fixed = [Path("data"), Path("../shared/data"), _CHECKOUT / "data", _CHECKOUT.parent / "shared" / "data"]
    return ([Path(named)] if named else []) + fixed


def find_file(name: str | Path, beside: Path | None = None) -> Path:
    """The file `name`: as given, or under `beside`, a data root, or the checkout. Raises UserError if there is none."""
    path = Path(name)
    folders = [Path(), *([beside] if beside else []), *data_roots(), _CHECKOUT]
    for folder in folders:
        if (folder / path).is_file():
            return folder / path
    raise UserError(f"no file {name} here or in a data folder; give its full path or set TRITKIT_DATA to its folder")
