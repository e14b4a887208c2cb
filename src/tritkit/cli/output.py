"""Facts first: every command makes one plain dict, which is printed either as JSON or as tables.

Standard output is data; standard error is talk.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Facts = dict[str, Any]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
_WIDTH = 160  # of tables that go to a file or a pipe


def emit(facts: Facts, as_json: bool, render: Callable[[Facts, Console], None]) -> None:
    """Print `facts`: as one JSON document, or by `render`."""
    if as_json:
        sys.stdout.write(json.dumps(_plain(facts), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        render(facts, _console(sys.stdout))


def talk(message: str) -> None:
    """A line of progress, on standard error."""
    say(_console(sys.stderr), message)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "", left: int = 1) -> Table:
    """A plain table: the first `left` columns are text, the others numbers, aligned right."""
    made = Table(box=None, header_style="bold", title=cell(title) if title else None, pad_edge=False)
    made.title_justify, made.title_style = "left", "bold"
    for i, name in enumerate(columns):
        made.add_column(cell(name), justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def say(console: Console, *lines: str) -> None:
    """Sentences; a long path is not broken, so that it can be copied."""
    for line in lines:
        console.print(cell(line), soft_wrap=True)


def cell(value: Any) -> Text:
    """A value as text that cannot carry markup or control characters, whatever file it came from."""
    if value is None:
        return Text("–")
    if isinstance(value, bool):
        return Text("yes" if value else "NO", style="" if value else "bold red")
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
    return Text("".join(c if c.isprintable() or c == "\n" else "?" for c in text))


def percent(fraction: float | None, digits: int = 1) -> str | None:
    return None if fraction is None else f"{100 * fraction:.{digits}f} %"


def kilobytes(size: int | None) -> str | None:
    """Decimal kilobytes, as sizes of files are given."""
    return None if size is None else f"{size / 1000:,.1f} kB"


def _console(stream: Any) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
