"""HTML and SVG elements as text that is escaped unless it was made here."""

from __future__ import annotations

from html import escape
from typing import Any

from tritkit.report.shown import Facts, Shown, pieces


class Markup(str):
    """Text that is markup already."""


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element. Attributes: a trailing underscore is dropped, others become hyphens; None leaves one out."""
    named = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{''.join(named)}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Children one after another."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_visible(child)) for child in children))


def number(shown: Shown, key: str, value: Any) -> Markup:
    """A fact on the page, with its key and exact value, so that it can be traced to the facts.

    `data-scale` says what the fact was multiplied by to be read. A fact that is text is only escaped.
    """
    if isinstance(value, str | list) or value is None:
        return join(shown.text)
    scale = None if shown.scale == 1 else repr(shown.scale)
    return tag("data", shown.text, value=repr(value), data_key=key, data_scale=scale)


def prose(template: str, facts: Facts) -> Markup:
    """A sentence with its facts."""
    made = (
        join(piece.shown.text) if piece.key is None else number(piece.shown, piece.key, piece.value)
        for piece in pieces(template, facts)
    )
    return join(*made)


def _value(value: str | float | None) -> str:
    return _visible(value) if isinstance(value, str) else f"{value:.6g}"


def _visible(text: str) -> str:
    """Without control characters, which a browser may drop or take for something else."""
    return "".join(c if c.isprintable() or c in "\n\u00a0" else "\ufffd" for c in text)
