"""What a page is made of, whatever draws it: sentences, tables whose bars are drawn from their own rows, figures.

A block names facts by their keys and holds no number of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prose:
    """A paragraph: a template of `shown.pieces`. style: "" for plain text, "lead" or "note"."""

    template: str
    style: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: `key` of each row, in a form of `shown.show`."""

    title: str
    key: str
    form: str = "text"


@dataclass(frozen=True)
class Part:
    """A piece of a bar: as long as the row's fact at `length`, in a colour, or the one the row's fact names."""

    length: str
    colour: str = ""
    colour_key: str = ""


@dataclass(frozen=True)
class Bars:
    """A column of bars. whole: what the full width stands for; None: the longest bar."""

    title: str
    parts: tuple[Part, ...]
    whole: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of the list at `rows`. total: key of a dict shown as a last row, its first cell is the word "all"."""

    caption: str
    rows: str
    columns: tuple[Column | Bars, ...]
    total: str | None = None


@dataclass(frozen=True)
class Figure:
    """A drawing of the facts at `key`; kind names a function of `figures`."""

    kind: str
    key: str
    caption: str
    legend: tuple[tuple[str, str], ...] = ()  # (colour, meaning)


Block = Prose | Table | Figure


@dataclass(frozen=True)
class Section:
    """anchor: a word for links."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
