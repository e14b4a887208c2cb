"""The report as one HTML page that loads nothing: styles and drawings are in it, and there is no script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from tritkit.report import figures
from tritkit.report.blocks import Bars, Block, Column, Figure, Prose, Section, Table
from tritkit.report.markup import Markup, join, number, prose, tag
from tritkit.report.sections import sections
from tritkit.report.shown import Facts, at, show
from tritkit.report.verdict import sentence

Row = dict[str, Any]
_FEW = 4  # columns of a table that gives its bars most of the width
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_page(facts: Facts, pictures: Mapping[int, bytes]) -> str:
    """facts: of `gather`. pictures: PNG files of images by number, for those that were mistaken."""
    made = sections(facts)
    style = Markup(files("tritkit.report").joinpath("page.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        tag("title", f"{facts['model']['name']}: a tritkit report"),
        tag("style", style),
    )
    body = tag(
        "body",
        _header(facts, made),
        tag("main", *(_section(section, facts, pictures) for section in made)),
        _footer(facts),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(facts: Facts, made: list[Section]) -> Markup:
    links = (tag("a", section.title, href=f"#{section.anchor}") for section in made)
    about = "{model.file} · {model.layers|count} weighted layers · {model.weights|count} weights"
    methods = "".join(f" · {name}" for name in facts["model"]["methods"])
    return tag(
        "header",
        tag("p", "tritkit report", class_="kicker"),
        tag("h1", prose(sentence(facts), facts)),
        tag("p", prose(about, facts), methods, class_="about"),
        tag("div", *_tiles(facts), class_="tiles"),
        tag("nav", *links, aria_label="Sections"),
    )


def _tiles(facts: Facts) -> list[Markup]:
    """The few numbers to remember: what, the number, what it is measured against."""
    chosen = [("size", "{sizes.bytes|bytes}", "float32: {sizes.float_bytes|bytes}")]
    found = facts["accuracy"]
    if found is not None:
        against = (
            "float32: {accuracy.float_error|percent2}" if "float_error" in found else "{accuracy.images|count} images"
        )
        chosen.append(("error", "{accuracy.error|percent2}", against))
    elif facts["training"] is not None and facts["training"]["test_error"] is not None:
        chosen.append(("error", "{training.test_error|percent2}", "by its training record"))
    if facts["times"] is not None:
        chosen.append(
            (
                "one image",
                "{times.microseconds|time}",
                "{times.threads|count} " + ("thread" if facts["times"]["threads"] == 1 else "threads"),
            )
        )
    if facts["densities"]["ternary"] is not None:
        chosen.append(
            ("not zero", "{densities.ternary|percent}", "of {densities.ternary_weights|large} ternary weights")
        )
    if facts["operations"] is not None:
        chosen.append(("arithmetic", "{operations.pj|energy}", "float32: {operations.float_pj|energy}, estimated"))
    return [
        tag("div", tag("span", what, class_="what"), tag("strong", prose(value, facts)), tag("span", prose(sub, facts)))
        for what, value, sub in chosen
    ]


def _footer(facts: Facts) -> Markup:
    rows = facts["verdict"]["missing"]
    missing = (tag("li", f"{row['what']}: ", tag("code", row["how"])) for row in rows)
    version = facts["model"]["version"]
    command = tag("code", "tritkit report --json", class_="whole")
    said = join("Every number on this page is one of ", command, "; its key stands in the page's source.")
    return tag(
        "footer",
        *((tag("h2", "Not measured"), tag("ul", *missing)) if rows else ()),
        tag("p", said, f" The file was written by tritkit {version}." if version else ""),
    )


def _section(section: Section, facts: Facts, pictures: Mapping[int, bytes]) -> Markup:
    blocks = (_block(block, facts, pictures) for block in section.blocks)
    return tag("section", tag("h2", section.title), *blocks, id=section.anchor)


def _block(block: Block, facts: Facts, pictures: Mapping[int, bytes]) -> Markup:
    if isinstance(block, Prose):
        return tag("p", prose(block.template, facts), class_=block.style or None)
    if isinstance(block, Table):
        return _table(block, facts)
    return _figure(block, facts, pictures)


def _figure(block: Figure, facts: Facts, pictures: Mapping[int, bytes]) -> Markup:
    drawn = figures.draw(block.kind, at(facts, block.key), block.key, pictures)
    words = (tag("span", tag("i", class_=f"swatch {colour}"), meaning) for colour, meaning in block.legend)
    legend = (tag("span", *words, class_="legend"),) if block.legend else ()
    return tag("figure", tag("figcaption", block.caption, *legend), drawn)


def _table(block: Table, facts: Facts) -> Markup:
    rows = at(facts, block.rows)
    heads = [
        tag("th", column.title, class_=_class(column) if i else None, scope="col")
        for i, column in enumerate(block.columns)
    ]
    wholes = {i: _whole(column, rows) for i, column in enumerate(block.columns) if isinstance(column, Bars)}
    lines = [
        tag("tr", *(_cell(column, row, f"{block.rows}.{i}", j, wholes) for j, column in enumerate(block.columns)))
        for i, row in enumerate(rows)
    ]
    foot = (tag("tfoot", _total(block, facts)),) if block.total else ()
    simple = "simple" if len(block.columns) <= _FEW else None
    table = tag(
        "table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), *foot, class_=simple, aria_label=block.caption
    )
    box = tag("div", table, class_="box", tabindex="0", role="region", aria_label=block.caption)
    return tag("figure", tag("figcaption", block.caption), box)


def _class(column: Column | Bars) -> str | None:
    if isinstance(column, Bars):
        return "bar"
    return None if column.form == "text" else "n"


def _cell(column: Column | Bars, row: Row, place: str, index: int, wholes: dict[int, float]) -> Markup:
    if isinstance(column, Bars):
        return tag("td", _bar(column, row, wholes[index]), class_="bar")
    value = row[column.key]
    shown = number(show(value, column.form), f"{place}.{column.key}", value)
    return tag("th", shown, scope="row") if index == 0 else tag("td", shown, class_=_class(column))


def _total(block: Table, facts: Facts) -> Markup:
    total = at(facts, block.total or "")
    cells = [tag("th", "all", scope="row")]
    for column in block.columns[1:]:
        if isinstance(column, Bars):
            cells.append(tag("td", class_="bar"))
            continue
        value = total.get(column.key)
        shown = number(show(value, column.form), f"{block.total}.{column.key}", value)
        cells.append(tag("td", shown, class_=_class(column)))
    return tag("tr", *cells)


def _whole(column: Bars, rows: list[Row]) -> float:
    """What the full width stands for."""
    if column.whole is not None:
        return column.whole
    return max((sum(_length(row, part.length) for part in column.parts) for row in rows), default=0) or 1.0


def _length(row: Row, key: str) -> float:
    value = row[key]
    return max(float(value), 0.0) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _bar(column: Bars, row: Row, whole: float) -> Markup:
    """Pieces side by side, in percent of the cell; the numbers stand in the row, so a reader may skip it."""
    at_, drawn = 0.0, []
    for part in column.parts:
        width = 100 * _length(row, part.length) / whole
        colour = row[part.colour_key] if part.colour_key else part.colour
        if colour and width:
            drawn.append(tag("rect", x=f"{at_:.2f}%", width=f"{width:.2f}%", height="100%", class_=f"c-{colour}"))
        at_ += width
    return tag("svg", *drawn, aria_hidden="true")
