#!/usr/bin/env python3
"""Draws docs/pictures/training.svg from a run's record: Wp, Wn and density of three layers over the epochs.

python scripts/docs_picture.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD, PICTURE = ROOT / "results/cifar10-resnet20-ttq/record.jsonl", ROOT / "docs/pictures/training.svg"
LAYERS = {"layer1.0.conv1": "#1f77b4", "layer2.1.conv2": "#d95f02", "layer3.2.conv1": "#2a9d5c"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 190, 46, 34, 70


def main() -> None:
    rows = [row for row in map(json.loads, RECORD.read_text().splitlines()) if "layers" in row and "epoch" in row]
    scales = {(name, key): [row["layers"][name][key] for row in rows] for name in LAYERS for key in ("wp", "wn")}
    densities = {(name, "density"): [100 * row["layers"][name]["density"] for row in rows] for name in LAYERS}
    parts = [_panel(0, "Wp (solid) and Wn (dashed)", scales), _panel(1, "weights that are not zero, %", densities)]
    total, height = 2 * (LEFT + WIDTH) + GAP, TOP + HEIGHT + 72
    style = "text{font:12px system-ui,sans-serif;fill:#888}path{fill:none;stroke-width:2}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" role="img">'
    title = "<title>Scales and density of a TTQ run over its epochs</title>"
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text("\n".join([head, title, f"<style>{style}</style>", *parts, _legend(height), "</svg>", ""]))


def _panel(index: int, title: str, lines: dict[tuple[str, str], list[float]]) -> str:
    left = LEFT + index * (LEFT + WIDTH + GAP - LEFT)
    top = _round_up(max(max(values) for values in lines.values()))
    count = len(next(iter(lines.values())))
    made = [f'<text x="{left}" y="{TOP - 12}">{title}</text>']
    for step in range(5):
        value, y = top * step / 4, TOP + HEIGHT * (1 - step / 4)
        made.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#8884" style="stroke-width:1"/>')
        made.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    for epoch in (1, count):
        x = left + WIDTH * (epoch - 1) / max(count - 1, 1)
        anchor = "start" if epoch == 1 else "end"
        made.append(f'<text x="{x:.0f}" y="{TOP + HEIGHT + 16}" text-anchor="{anchor}">epoch {epoch}</text>')
    made += [_line(values, left, top, LAYERS[name], key == "wn") for (name, key), values in lines.items()]
    return "\n".join(made)


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(n * unit for n in (1, 2, 4, 8, 10) if n * unit >= value)


def _line(values: list[float], left: int, top: float, colour: str, dashed: bool) -> str:
    points = [
        f"{left + WIDTH * i / max(len(values) - 1, 1):.1f} {TOP + HEIGHT * (1 - v / top):.1f}"
        for i, v in enumerate(values)
    ]
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="M{" L".join(points)}" stroke="{colour}"{dash}/>'


def _legend(height: int) -> str:
    made = []
    for i, (name, colour) in enumerate(LAYERS.items()):
        x = LEFT + 190 * i
        made.append(f'<path d="M{x} {height - 18}h22" stroke="{colour}"/>')
        made.append(f'<text x="{x + 28}" y="{height - 14}">{name}</text>')
    return "\n".join(made)


if __name__ == "__main__":
    main()
