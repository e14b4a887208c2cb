"""Makes docs/performance.md and docs/performance/MACHINE.md of performance_intro.md and the records in
results/performance/MACHINE/. Runs nothing.

python benchmarks/performance_page.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from performance import MATRIX, RESULTS, ROOT, cells

PAGE = ROOT / "docs" / "performance.md"
INTRO = ROOT / "benchmarks" / "performance_intro.md"
NOISE = 0.1  # CPUs that others may keep busy before a record is marked

TITLES = {
    "resnet20": "ResNet-20, images of 32x32",
    "resnet18": "ResNet-18, images of 224x224",
    "resnet50": "ResNet-50, images of 224x224",
    "alexnet-bn": "AlexNet with batch norm, images of 224x224",
    "linear:4096x4096": "A linear layer, 4096 to 4096",
    "conv:64x64x56x56k3": "A 3x3 convolution, 64 to 64 channels, 56x56 pixels",
}


def machines() -> list[Path]:
    """The folders of records, one a machine, those of the latest records first."""
    folders = [folder for folder in RESULTS.glob("*") if records(folder)]
    return sorted(folders, key=lambda folder: (_latest(folder), folder.name), reverse=True)


def records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of each network, in the order of the matrix."""
    found: dict[str, list[dict[str, Any]]] = {network: [] for network in MATRIX}
    for cell in cells():
        path = folder / f"{cell.name}.json"
        if path.is_file():
            found[cell.network].append(json.loads(path.read_text()))
    return {network: rows for network, rows in found.items() if rows}


def _latest(folder: Path) -> str:
    return max(record["machine"]["date"] for rows in records(folder).values() for record in rows)


def page(folders: list[Path]) -> str:
    """The page as Markdown: what is the same everywhere, and a summary of each machine."""
    parts = [INTRO.read_text()]
    for folder in folders:
        found = records(folder)
        parts += [f"## {_cpu(found)}\n", *machine([r for rows in found.values() for r in rows]), summary(found)]
        parts += [*beside(folder), f"[All engines on this machine](performance/{folder.name}.md)\n"]
    return "\n".join(parts)


def details(folder: Path) -> str:
    """The page of a machine: every engine in every record."""
    found = records(folder)
    parts = [f"# Speed on {_cpu(found)}\n", "How it is measured, and summaries: [Speed](../performance.md).\n"]
    for network, rows in found.items():
        parts += [f"## {TITLES[network]}\n", times(rows), sizes(rows)]
    return "\n".join(parts)


def _cpu(found: dict[str, list[dict[str, Any]]]) -> str:
    return next(iter(found.values()))[0]["machine"]["cpu"]


def beside(folder: Path) -> Iterator[str]:
    """What benchmarks/group_sizes.py and benchmarks/avx2.py measured."""
    if (folder / "groups.json").is_file():
        yield "### Groups of weights\n"
        yield "ResNet-20 after post-training with a scale for N weights, milliseconds (`benchmarks/group_sizes.py`).\n"
        yield group_table(json.loads((folder / "groups.json").read_text())["rows"]) + "\n"
    if (folder / "avx2.json").is_file():
        yield "### Held to AVX2\n"
        yield "Batch 1, our ternary network beside our int8 one (`benchmarks/avx2.py`): no AVX-512, no dot products.\n"
        head = ["network", "threads", "not zero", "ternary ms", "int8 ms", "ratio"]
        yield "\n".join([_line(head), "|---" * len(head) + "|"])
        for row in json.loads((folder / "avx2.json").read_text())["rows"]:
            times = [ms(row["ternary_ms"]), ms(row["int8_ms"]), f"**{row['ratio']:.2f}**"]
            yield _line([row["network"], row["threads"], f"{100 * row['density']:.0f} %", *times])
        yield ""


def machine(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What the records were measured on, and with."""
    limits = [r["limit_macs_per_cycle"] for r in rows if r["limit_macs_per_cycle"]]
    limit = f"{max(limits):g} int8 products a cycle and core" if limits else "no instruction for int8 products"
    for facts in {json.dumps(_lasting(r), sort_keys=True): _lasting(r) for r in rows}.values():
        caches = ", ".join(f"{name} {size}" for name, size in facts["caches"].items())
        memory = facts["memory_bytes"] / 2**30
        yield f"{facts['cpu']}, {facts['cpus']} CPUs, {limit}; {caches}; {memory:.0f} GiB; {facts['system']}.\n"
    clocks = [r["cells"][0]["hertz"] for r in rows if r["cells"][0]["hertz"]]
    versions = {name: version for r in rows for row in r["cells"][0]["rows"] for name, version in _versions(row)}
    commits = sorted({r["commit"] for r in rows})
    dates = sorted({r["machine"]["date"] for r in rows})
    clock = f"Clock while measuring: {min(clocks) / 1e9:.2f} to {max(clocks) / 1e9:.2f} GHz. " if clocks else ""
    when = f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} at commit {', '.join(commits)}, with "
    yield clock + when + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".\n"


def _lasting(record: dict[str, Any]) -> dict[str, Any]:
    kept = ("cpu", "cpus", "caches", "memory_bytes", "system")
    return {key: record["machine"][key] for key in kept}


def _versions(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from row.get("versions", {}).items()


def summary(found: dict[str, list[dict[str, Any]]]) -> str:
    """One line a record: ours, and the fastest of each family."""
    head = ["network", "batch", "threads", "scales", "not zero", "tritkit ms"]
    head += ["fastest int8", "ms", "ratio", "fastest float", "ms", "ratio"]
    lines = [_line(head), "|---" * len(head) + "|"]
    for rows in found.values():
        for record in rows:
            (cell,) = record["cells"]
            by_name = {row["engine"]: row for row in cell["rows"]}
            ours = [record["network"], cell["batch"], cell["threads"], record["scales"]]
            ours += [_share(record) + _noisy(cell), ms(by_name["tritkit"]["median_ms"])]
            lines.append(_line([*ours, *_fastest(cell, by_name, "int8"), *_fastest(cell, by_name, "float")]))
    if any(_noisy(record["cells"][0]) for rows in found.values() for record in rows):
        lines.append(f"\n\\* Other programs kept more than {NOISE} CPUs busy meanwhile: measure it again.")
    return "\n".join(lines) + "\n"


def _share(record: dict[str, Any]) -> str:
    return f"{100 * record['density']:.0f} %"


def _noisy(cell: dict[str, Any]) -> str:
    return " \\*" if cell["others_busy"] > NOISE else ""


def _fastest(cell: dict[str, Any], by_name: dict[str, dict[str, Any]], family: str) -> list[str]:
    name = cell[f"fastest_{family}"]
    if name is None:
        return ["–"] * 3
    return [name.removesuffix(f"-{family}"), ms(by_name[name]["median_ms"]), f"**{by_name[name]['ratio']:.2f}**"]


def group_table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds by group size, rows of the same batch and threads side by side."""
    columns = list(dict.fromkeys(row["group_size"] for row in rows))
    lines = [_line(["batch", "threads", *(f"N = {size}" for size in columns), "fastest int8 engine", "ms"])]
    lines.append("|---" * (len(columns) + 4) + "|")
    for batch, threads in dict.fromkeys((row["batch"], row["threads"]) for row in rows):
        here = {row["group_size"]: row["ms"] for row in rows if (row["batch"], row["threads"]) == (batch, threads)}
        peers = [
            (value, name) for times in here.values() for name, value in times.items() if name != "tritkit" and value
        ]
        best, name = min(peers)
        ours = [ms(here[size]["tritkit"]) for size in columns]
        lines.append(_line([batch, threads, *ours, name.removesuffix("-int8"), ms(best)]))
    return "\n".join(lines)


def times(rows: list[dict[str, Any]]) -> str:
    """Every engine in every record of a network."""
    heads = [_head(record) for record in rows]
    lines = [_line(["ms (10 % – 90 %), MAC a cycle", *heads]), "|---" * (1 + len(rows)) + "|"]
    names = list(dict.fromkeys(row["engine"] for record in rows for row in record["cells"][0]["rows"]))
    for name in names:
        found = [next((r for r in record["cells"][0]["rows"] if r["engine"] == name), None) for record in rows]
        if any(row and row["status"] != "unsupported" for row in found):
            lines.append(_line([name, *(_time(row) for row in found)]))
    return "\n".join(lines) + "\n"


def _head(record: dict[str, Any]) -> str:
    (cell,) = record["cells"]
    threads = f"{cell['threads']} thread{'s' * (cell['threads'] > 1)}"
    return f"batch {cell['batch']}, {threads}, {record['scales']}, {_share(record)} not zero"


def _time(row: dict[str, Any] | None) -> str:
    if row is None or row["status"] != "timed":
        return row["status"] if row else "–"
    cycle = f", {row['macs_per_cycle']:.0f}" if "macs_per_cycle" in row else ""
    return f"**{ms(row['median_ms'])}** ({ms(row['p10_ms'])} – {ms(row['p90_ms'])}){cycle}"


def sizes(rows: list[dict[str, Any]]) -> str:
    """File and memory of each engine in the first record, and how it was checked."""
    lines = [_line(["engine", "file kB", "memory MB", "checked"]), "|---" * 4 + "|"]
    for row in rows[0]["cells"][0]["rows"]:
        if row["status"] == "timed":
            kilo, mega = f"{row['file_bytes'] / 1e3:,.1f}", f"{row['model_bytes'] / 1e6:.1f}"
            lines.append(_line([row["engine"], kilo, mega, row["checked"]]))
        elif row["status"] != "unsupported":
            lines.append(_line([row["engine"], "–", "–", f"{row['status']}: {row['note']}"]))
    return "\n".join(lines) + "\n"


def _line(values: list[Any]) -> str:
    return "| " + " | ".join(str(value).replace("|", "/") for value in values) + " |"


def ms(value: float) -> str:
    """Milliseconds with three digits that count."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def main() -> int:
    folders = machines()
    if not folders:
        print(f"no records in {RESULTS}; run benchmarks/performance.py first", file=sys.stderr)
        return 2
    write(PAGE, page(folders))
    for folder in folders:
        write(PAGE.with_suffix("") / f"{folder.name}.md", details(folder))
        print(f"{folder.name}: {sum(map(len, records(folder).values()))} of {len(list(cells()))} records")
    return 0


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
