#!/usr/bin/env python3
"""Gathers the pages of the documentation's site in a folder: those of docs/, README as its front, a page a method.

python scripts/docs_pages.py build/docs
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tritkit import methods
from tritkit.cli.methods import all_methods, clauses, defaults

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def gather(folder: Path) -> None:
    """Write all pages; what was in the folder goes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "methods").mkdir(parents=True)
    pages = {path: folder / path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    pages[ROOT / "README.md"] = folder / "index.md"
    pages[ROOT / "CONTRIBUTING.md"] = folder / "contributing.md"
    pages[ROOT / "CHANGELOG.md"] = folder / "changelog.md"
    for source, target in pages.items():
        target.write_text(_relinked(source.read_text(), source, folder, pages))
    shutil.copyfile(ROOT / "docs" / "site.css", folder / "site.css")
    for row in all_methods():
        (folder / "methods" / f"{row['name']}.md").write_text(method_page(row))
    (folder / "methods" / "index.md").write_text(_list_of_methods())


def method_page(row: dict[str, Any]) -> str:
    """What `tritkit methods NAME` says, as a page."""
    cls = methods.method_class(row["name"])
    formulas = "\n".join(f"    {clause}" for clause in clauses(row["summary"]))
    fields = f"`{row['class']}({defaults(row)})`" if row["parameters"] else f"`{row['class']}()`"
    text = inspect.cleandoc(cls.__doc__ or "")
    return f"# {row['name']}\n\n{row['paper']}\n\n{formulas}\n\n{fields}\n\n```text\n{text}\n```\n"


def _list_of_methods() -> str:
    rows = [f"- [{row['name']}]({row['name']}.md): {row['paper'].rsplit(', ', 1)[0]}" for row in all_methods()]
    return "\n".join(["# One page a method", "", "[All in a table, and which to take](../methods.md).", "", *rows, ""])


def _relinked(text: str, source: Path, folder: Path, pages: dict[Path, Path]) -> str:
    """Links to pages stay links; linked pictures are copied; links to other files become their names."""

    def change(link: re.Match[str]) -> str:
        picture, label, target, anchor = link[1], link[2], link[3], link[4] or ""
        if "://" in target:
            return link[0]
        path = (source.parent / target).resolve()
        if path in pages:
            return f"[{label}]({pages[path].name}{anchor})"
        if picture or path.suffix in (".png", ".svg"):
            if not path.is_file():
                raise SystemExit(f"{source}: the picture {target} does not exist")
            copied = folder / "pictures" / "-".join(path.relative_to(ROOT).parts)
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copied)
            return f"{picture}[{label}](pictures/{copied.name}){anchor}"
        if not path.exists():
            raise SystemExit(f"{source}: the link {target} leads nowhere")
        return f"{label} (`{path.relative_to(ROOT)}`)" if label != str(path.relative_to(ROOT)) else f"`{label}`"

    return _LINK.sub(change, text)


if __name__ == "__main__":
    gather(Path(sys.argv[1]).resolve())
