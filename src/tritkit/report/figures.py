"""Drawings for the page, as SVG without text of their own: labels are HTML, so they stay readable at any width."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tritkit.report.markup import Markup, join, number, tag
from tritkit.report.shown import show

Facts = dict[str, Any]
_ACROSS, _GAP = 24, 1  # kernels in a row of a drawing, units between them


def draw(kind: str, facts: Any, key: str, pictures: Mapping[int, bytes]) -> Markup:
    """The figure of that kind. facts: what stands at `key`."""
    return thumbnails(facts, key, pictures) if kind == "thumbnails" else _FIGURES[kind](facts, key)


def curves(training: Facts, key: str) -> Markup:
    """Loss, error on training images and on held-out ones."""
    chosen = (("loss", "loss", "number", "plus"), ("error on training images", "train_error", "percent2", "minus"),
              ("error on held-out images", "held_out_error", "percent2", "dense"))  # fmt: skip
    cards = []
    for title, name, form, colour in chosen:
        known = [i for i, value in enumerate(training[name]) if value is not None]
        if len(known) > 1:
            ends = (_value(training[name], known[i], f"{key}.{name}", form) for i in (0, -1))
            drawing = _lines([(training[name], colour)], f"{title} over the epochs")
            first, last = ends
            cards.append(_card(title, drawing, tag("p", first, " → ", last)))
    return _grid(cards, "wide")


def scales(layers: list[Facts], key: str) -> Markup:
    """A card for each layer: Wp and Wn above, density below."""
    top = max((v for row in layers for side in ("wp", "wn") for v in row[side] if v is not None), default=1.0)
    cards = []
    for i, row in enumerate(layers):
        above = _lines([(row["wp"], "plus"), (row["wn"], "minus")], f"Wp and Wn of {row['name']}", top)
        below = _lines([(row["density"], "dense")], f"density of {row['name']}", 1.0, area=True)
        place = f"{key}.{i}"
        words = (
            tag("span", "Wp ", _fact(row, "wp_last", place, "number"), class_="t-plus"),
            tag("span", "Wn ", _fact(row, "wn_last", place, "number"), class_="t-minus"),
            tag("span", _fact(row, "density_last", place, "percent0"), " not zero", class_="t-dense"),
        )
        cards.append(_card(row["name"], join(above, below), tag("p", *words)))
    return _grid(cards)


def histograms(layers: list[Facts], key: str) -> Markup:
    """A card for each layer: its latents, coloured by what they become."""
    cards = []
    for i, row in enumerate(layers):
        words = tag(
            "p",
            "Δ ",
            _fact(row, "threshold", f"{key}.{i}", "number"),
            " · σ ",
            _fact(row, "deviation", f"{key}.{i}", "number"),
        )
        cards.append(_card(row["name"], _histogram(row), words))
    return _grid(cards)


def kernels(layers: list[Facts], key: str) -> Markup:
    """A card for each layer: a sample of its kernels in black, grey and white."""
    cards = []
    for i, row in enumerate(layers):
        words = tag(
            "p",
            _fact(row, "empty_share", f"{key}.{i}", "percent"),
            " of ",
            _fact(row, "kernels", f"{key}.{i}", "count"),
            " empty",
        )
        cards.append(_card(row["name"], _kernels(row), words))
    return _grid(cards, "large")


def thumbnails(rows: list[Facts], key: str, pictures: Mapping[int, bytes]) -> Markup:
    """Images with their label and what the network says."""
    cards = []
    for row in rows:
        data = pictures.get(row["image"])
        if data is not None:
            source = "data:image/png;base64," + b64encode(data).decode()
            image = tag("img", src=source, alt=f"an image of {row['label']}").removesuffix("</img>")
            words = tag("figcaption", tag("b", row["label"]), " ", tag("span", f"seen as {row['ternary']}"))
            cards.append(tag("figure", Markup(image), words, class_="thumb"))
    return tag("div", *cards, class_="thumbs")


_FIGURES: dict[str, Callable[[Any, str], Markup]] = {
    "curves": curves,
    "scales": scales,
    "histograms": histograms,
    "kernels": kernels,
}


def _grid(cards: Sequence[Markup], style: str = "") -> Markup:
    return tag("div", *cards, class_=f"grid {style}".strip())


def _card(title: str, drawing: Markup, words: Markup) -> Markup:
    return tag("div", tag("h3", title), drawing, words, class_="card")


def _fact(row: Facts, name: str, place: str, form: str) -> Markup:
    return number(show(row[name], form), f"{place}.{name}", row[name])


def _value(values: list[float], index: int, place: str, form: str) -> Markup:
    return number(show(values[index], form), f"{place}.{index}", values[index])


def _svg(width: float, height: float, title: str, *children: Markup, style: str = "plot", fit: bool = False) -> Markup:
    """A drawing with a title for who cannot see it. fit: keep its proportions."""
    ratio = None if fit else "none"
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", tag("title", title), *children, viewBox=box, preserveAspectRatio=ratio, role="img", class_=style)


def _lines(
    series: list[tuple[list[float | None], str]], title: str, top: float | None = None, area: bool = False
) -> Markup:
    """Curves over equal steps, from 0 to `top` (default: the largest value)."""
    high = top or max((v for values, _ in series for v in values if v is not None), default=0.0) or 1.0
    steps = max((len(values) for values, _ in series), default=1)
    drawn = [tag("path", d="M0 40H100", class_="axis")]
    for values, colour in series:
        last = max(steps - 1, 1)
        points = [
            f"{100 * i / last:.4g} {40 - 38 * min(v / high, 1):.4g}" for i, v in enumerate(values) if v is not None
        ]
        if points:
            path = "M" + "L".join(points)
            if area:
                drawn.append(tag("path", d=f"{path}L100 40L0 40Z", class_=f"f-{colour}"))
            drawn.append(tag("path", d=path, class_=f"s-{colour}"))
    return _svg(100, 40, title, *drawn, style="plot small" if area else "plot")


def _histogram(row: Facts) -> Markup:
    counts, high = row["counts"], max(row["counts"], default=0) or 1
    bars: dict[str, list[str]] = {"minus": [], "zero": [], "plus": []}
    for i, count in enumerate(counts):
        middle = row["low"] + (i + 0.5) * row["width"]
        colour = "zero" if abs(middle) <= row["threshold"] else "plus" if middle > 0 else "minus"
        tall = 40 * count / high
        bars[colour].append(f"M{i} 40v{-tall:.4g}h1v{tall:.4g}z")
    drawn = [tag("path", d="".join(paths), class_=f"c-{colour}") for colour, paths in bars.items() if paths]
    for side in (-1, 1):
        at = (side * row["threshold"] - row["low"]) / row["width"]
        if 0 <= at <= len(counts):
            drawn.append(tag("path", d=f"M{at:.4g} 0V40", class_="cut"))
    most = "zero" if row["within"] * 2 > row["latents"] else "not zero"
    title = f"Histogram of the latent weights of {row['name']}: most become {most}"
    return _svg(len(counts), 40, title, *drawn, style="plot tall")


def _kernels(row: Facts) -> Markup:
    """Squares of a unit: grey where nothing is drawn, white for +, black for −; lines between the kernels."""
    sample, step_x, step_y = row["sample"], row["width"] + _GAP, row["height"] + _GAP
    across = min(_ACROSS, len(sample))
    full, rest = divmod(len(sample), across)
    width, height = step_x * across - _GAP, step_y * (full + bool(rest)) - _GAP
    drawn = [tag("rect", width=width, height=step_y * full - _GAP, class_="k-grey")]
    if rest:
        drawn.append(tag("rect", y=step_y * full, width=step_x * rest - _GAP, height=row["height"], class_="k-grey"))
    for sign, name in (("+", "k-white"), ("-", "k-black")):
        squares = (_squares(kernel, sign, row["width"]) for kernel in sample)
        moved = (
            f"M{step_x * (i % across) + x} {step_y * (i // across) + y}h{run}v1h-{run}z"
            for i, found in enumerate(squares)
            for x, y, run in found
        )
        drawn.append(tag("path", d="".join(moved), class_=name))
    gaps = [f"M{step_x * i - _GAP / 2:g} 0V{height}" for i in range(1, across)]
    gaps += [f"M0 {step_y * i - _GAP / 2:g}H{width}" for i in range(1, full + bool(rest))]
    drawn.append(tag("path", d="".join(gaps), class_="k-gap"))
    return _svg(width, height, f"A sample of the kernels of {row['name']}", *drawn, style="kernels", fit=True)


def _squares(kernel: str, sign: str, wide: int) -> Iterator[tuple[int, int, int]]:
    """Column, row and length of each unbroken run of a sign."""
    for y in range(len(kernel) // wide):
        for run in re.finditer(re.escape(sign) + "+", kernel[y * wide : (y + 1) * wide]):
            yield run.start(), y, len(run[0])
