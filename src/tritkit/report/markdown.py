"""The report as Markdown: the page's sentences and tables, without its drawings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritkit.report.blocks import Block, Column, Prose, Table
from tritkit.report.sections import sections
from tritkit.report.shown import at, plain, show

Facts = dict[str, Any]
_MARKED = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|#~"})


def markdown_page(facts: Facts) -> str:
    """One document; text from the model file is escaped."""
    lines = [f"# {_safe(facts['model']['name'])}", "", f"**{_safe(facts['verdict']['sentence'])}**", ""]
    if facts["verdict"]["missing"]:
        lines += ["Not measured:", ""]
        lines += [f"- {_safe(row['what'])}: `{_code(row['how'])}`" for row in facts["verdict"]["missing"]]
        lines.append("")
    for section in sections(facts):
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += _block(block, facts)
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block, facts: Facts) -> Iterator[str]:
    if isinstance(block, Prose):
        yield from (_safe(plain(block.template, facts)), "")
    if isinstance(block, Table):
        columns = [column for column in block.columns if isinstance(column, Column)]
        yield from (f"{block.caption}:", "")
        yield _line(column.title for column in columns)
        yield _line("---" if column.form == "text" else "---:" for column in columns)
        for row in at(facts, block.rows):
            yield _line(_safe(show(row[column.key], column.form).text) for column in columns)
        if block.total is not None:
            total = {columns[0].key: "all", **at(facts, block.total)}
            yield _line(_safe(show(total.get(column.key), column.form).text) for column in columns)
        yield ""


def _line(cells: Iterator[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _safe(text: str) -> str:
    """Text that cannot be markup or break a table, whatever file it came from."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).translate(_MARKED)


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
