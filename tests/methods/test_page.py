"""docs/methods.md says what the methods say, and a word about each."""

from __future__ import annotations

import runpy
from pathlib import Path

from tritkit.methods import names

ROOT = Path(__file__).parents[2]


def test_the_table_is_what_the_methods_say() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "methods_page.py"))["page"]
    page = (ROOT / "docs" / "methods.md").read_text()
    assert made(page) == page, "run scripts/methods_page.py"
    assert made(page.replace("`twn`", "`tnw`", 1)) == page


def test_every_method_has_its_sentence() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    sentences = page.partition("## Which one")[2].partition("## ")[0]
    assert [name for name in names() if f"`{name}`" not in sentences] == []
