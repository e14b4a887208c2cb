#!/usr/bin/env python3
"""Writes the table of docs/methods.md from the methods themselves.

python scripts/methods_page.py               # writes the table anew; all else on the page stays
python scripts/methods_page.py --check       # exit code 1 if it is not what the methods say
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from tritkit import methods
from tritkit.cli.methods import all_beside, all_methods, clauses, defaults

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- made by scripts/methods_page.py -->\n", "<!-- end -->\n"


def page(text: str) -> str:
    """The page `text` with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE} lacks the line {BEGIN.strip()} or {END.strip()} behind it")
    return before + BEGIN + table() + END + after


def table() -> str:
    lines = ["| name | formulas | fields and defaults | weights in the file | paper |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_line, [*all_methods(), *all_beside()])]) + "\n"


def _line(row: dict[str, Any]) -> str:
    formulas = "<br>".join(f"`{clause}`" for clause in clauses(row["summary"]))
    fields = "<br>".join(f"`{field}`" for field in defaults(row).split(", ")) if row["parameters"] else "none"
    where = row["class"] if "class" in row else row["module"]
    values = row["file"] if "file" in row else _values(row["name"])
    cells = [f"`{row['name']}` (`{where}`)", formulas, fields, values, row["paper"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(name: str) -> str:
    """Whether weights without a zero among them get the code 0."""
    weight = torch.linspace(-1, 1, 64).reshape(8, 8)
    return "ternary" if bool((methods.get(name).project(weight).codes == 0).any()) else "binary"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = PAGE.read_text()
    made = page(text)
    if check:
        print("docs/methods.md is what the methods say" if made == text else "run scripts/methods_page.py")
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
