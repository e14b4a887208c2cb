"""How a fact is written: `{sizes.ratio|times}` in a sentence of ours becomes the fact at that place, formatted.

Everything that the page and the Markdown show of the facts goes through here, so each number can be traced to its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Facts = dict[str, Any]
SPACE = "\u00a0"  # between a number and its unit
NONE = "–"


class Shown(NamedTuple):
    """text: what is read. scale: the number in the text is the fact times this."""

    text: str
    scale: float = 1.0


class Piece(NamedTuple):
    """A part of a sentence: plain text of ours (key None), or the fact at `key`, formatted."""

    shown: Shown
    key: str | None
    value: Any


def at(facts: Facts, key: str) -> Any:
    """The fact at a path of names and list indices with dots between: "sizes.layers.0.bytes"."""
    value: Any = facts
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


_FIELD = re.compile(r"\{([a-z0-9_.]+)(?:\|([a-z0-9]+))?\}")


def pieces(template: str, facts: Facts) -> Iterator[Piece]:
    """A sentence cut at its fields `{key}` and `{key|form}`."""
    end = 0
    for field in _FIELD.finditer(template):
        if field.start() > end:
            yield Piece(Shown(template[end : field.start()]), None, None)
        value = at(facts, field[1])
        yield Piece(show(value, field[2] or "text"), field[1], value)
        end = field.end()
    if end < len(template):
        yield Piece(Shown(template[end:]), None, None)


def plain(template: str, facts: Facts) -> str:
    """The sentence as text."""
    return "".join(piece.shown.text for piece in pieces(template, facts)).replace(SPACE, " ")


def show(value: Any, form: str) -> Shown:
    """A value in one of the forms below; None is a dash."""
    return Shown(NONE) if value is None else _FORMS[form](value)


def _unit(number: str, unit: str) -> str:
    return f"{number}{SPACE}{unit}"


def _stepped(value: float, steps: tuple[tuple[float, str, int], ...]) -> Shown:
    """The first unit that leaves at least 1, else the last; with its digits after the point."""
    size, unit, digits = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    number = _signed(f"{value / size:,.{digits}f}")
    return Shown(_unit(number, unit) if unit else number, 1 / size)


def _signed(number: str) -> str:
    return number.replace("-", "−")


def _bytes(value: float) -> Shown:
    return _stepped(value, ((1e9, "GB", 2), (1e6, "MB", 2), (1e3, "kB", 1), (1, "B", 0)))


def _energy(value: float) -> Shown:
    return _stepped(value, ((1e9, "mJ", 2), (1e6, "µJ", 2), (1e3, "nJ", 1), (1, "pJ", 0)))


def _large(value: float) -> Shown:
    return _stepped(value, ((1e9, "G", 2), (1e6, "M", 2), (1e3, "k", 1), (1, "", 0)))


def _time(value: float) -> Shown:
    """Microseconds."""
    return _stepped(value, ((1e6, "s", 2), (1e3, "ms", 2), (1, "µs", 1)))


def _percent(digits: int) -> Callable[[float], Shown]:
    return lambda value: Shown(_unit(_signed(f"{100 * value:.{digits}f}"), "%"), 100.0)


def _points(digits: int) -> Callable[[float], Shown]:
    return lambda value: Shown(_signed(f"{100 * value:+.{digits}f}"), 100.0)


def _significant(value: float) -> Shown:
    plain_ = not value or 1e-4 <= abs(value) < 1000
    return Shown(_signed(f"{value:#.3g}".rstrip(".") if plain_ else f"{value:.2e}"))


_FORMS: dict[str, Callable[[Any], Shown]] = {
    "text": lambda value: Shown(str(value)),
    "count": lambda value: Shown(_signed(f"{value:,}")),
    "bytes": _bytes,
    "change": lambda value: Shown(("+" if value > 0 else "") + _bytes(value).text, _bytes(value).scale),
    "energy": _energy,
    "large": _large,
    "time": _time,
    "ms": lambda value: Shown(_unit(f"{value:.3f}", "ms")),
    "percent": _percent(1),
    "percent0": _percent(0),
    "percent2": _percent(2),
    "points": _points(1),
    "points2": lambda value: Shown(f"{100 * value:.2f}", 100.0),
    "times": lambda value: Shown(f"{value:.1f}" if value < 100 else f"{value:,.0f}"),
    "times2": lambda value: Shown(f"{value:.2f}"),
    "one": lambda value: Shown(f"{value:,.1f}"),
    "two": lambda value: Shown(_signed(f"{value:,.2f}")),
    "chance": lambda value: Shown(f"{value:.2g}"),
    "three": lambda value: Shown(_signed(f"{value:+.3f}")),
    "whole": lambda value: Shown(f"{value:,.0f}"),
    "number": _significant,
}
