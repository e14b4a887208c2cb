#!/usr/bin/env python3
"""Gathers the pages of the documentation's site in a folder: those of docs/, README as its front, a page a method.

python scripts/docs_pages.py build/docs
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tritkit import methods
from tritkit.cli.methods import all_beside, all_methods, clauses, defaults

ROOT = Path(__file__).resolve().parent.parent
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)#\s]+)\)")
_LINK = re.compile(r"(?<!!)\[((?:!\[[^\]]*\]\([^)]*\)|[^\]])*)\]\(([^)#\s]+)(#[^)]*)?\)")  # a picture may be its label
_ITEM = re.compile(r"(?:\A|(?<=\.\n))([A-Za-z_\\]+(?:, [a-z_\\]+)*:) ")  # a parameter in a docstring
_BAR = re.compile(r"`[^`\n]*\\\|[^`\n]*`")  # code in a table: on GitHub a bar is escaped there, on the site it is not
_ESCAPED = re.compile(r"`[^`]*`|[*_]")


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
    for row in [*all_methods(), *all_beside()]:
        (folder / "methods" / f"{row['name']}.md").write_text(method_page(row))
    (folder / "methods" / "index.md").write_text(_list_of_methods())


def method_page(row: dict[str, Any]) -> str:
    """What `tritkit methods NAME` says, as a page."""
    if "class" in row:
        told, call = methods.method_class(row["name"]), f"`{row['class']}({defaults(row)})`"
    else:
        told, call = importlib.import_module(row["module"]), f"In a recipe `[{row['table']}]`: `{defaults(row)}`"
    formulas = "\n".join(f"    {clause}" for clause in clauses(row["summary"]))
    paper = re.sub(r"https://\S+", r"<\g<0>>", row["paper"])
    return f"# {row['name']}\n\n{paper}\n\n{formulas}\n\n{call}\n\n{prose(inspect.getdoc(told) or '')}\n"


def prose(docstring: str) -> str:
    """A docstring as Markdown: blocks that are indented stay formulas, each parameter begins a line of its own."""
    return "\n\n".join(_block(block) for block in docstring.split("\n\n"))


def _block(block: str) -> str:
    if all(line.startswith("    ") for line in block.split("\n")):
        return block
    text = re.sub(r"\n +", "\n", _ESCAPED.sub(_escape, block))
    return _ITEM.sub(r"\n**\1** ", text).strip()


def _escape(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("`") else "\\" + found[0]


def _list_of_methods() -> str:
    every = [*all_methods(), *all_beside()]
    rows = [f"- [{row['name']}]({row['name']}.md): {row['paper'].rsplit(', ', 1)[0]}" for row in every]
    return "\n".join(["# One page a method", "", "[All in a table, and which to take](../methods.md).", "", *rows, ""])


def _relinked(text: str, source: Path, folder: Path, pages: dict[Path, Path]) -> str:
    """Links to pages stay links; pictures are copied; links to other files become their names."""

    def picture(link: re.Match[str]) -> str:
        label, target = link[1], link[2]
        return link[0] if "://" in target else f"![{label}]({_copied((source.parent / target).resolve(), folder)})"

    def change(link: re.Match[str]) -> str:
        label, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        path = (source.parent / target).resolve()
        if path in pages:
            return f"[{label}]({pages[path].name}{anchor})"
        if path.suffix in (".png", ".svg"):
            return f"[{label}]({_copied(path, folder)})"
        if not path.exists():
            raise SystemExit(f"{source}: the link {target} leads nowhere")
        return f"{label} (`{path.relative_to(ROOT)}`)" if label != str(path.relative_to(ROOT)) else f"`{label}`"

    return _BAR.sub(lambda code: code[0].replace("\\|", "|"), _LINK.sub(change, _PICTURE.sub(picture, text)))


def _copied(picture: Path, folder: Path) -> str:
    if not picture.is_file():
        raise SystemExit(f"the picture {picture} does not exist")
    copied = folder / "pictures" / "-".join(picture.relative_to(ROOT).parts)
    copied.parent.mkdir(exist_ok=True)
    shutil.copyfile(picture, copied)
    return f"pictures/{copied.name}"


if __name__ == "__main__":
    gather(Path(sys.argv[1]).resolve())
