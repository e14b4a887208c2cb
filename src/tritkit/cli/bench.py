"""`tritkit bench`: our engine and its peers, timed in turn on the same network, threads and CPUs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, kilobytes, percent, say, table, talk
from tritkit.cli.writing import check_place, write_place
from tritkit.errors import UserError


class Scales(StrEnum):
    """Whether the two scales of a layer are equal."""

    symmetric = "symmetric"
    asymmetric = "asymmetric"


def command(
    network: Annotated[
        str,
        typer.Argument(
            help="resnet20, resnet18, …, conv:64x64x56x56k3, linear:4096x4096, or an .onnx file of tritkit."
        ),
    ],
    batch: Annotated[str, typer.Option(help="Images a run; several with commas: 1,64.")] = "1",
    threads: Annotated[int, typer.Option(help="Of every engine, pinned to as many CPUs.")] = 1,
    density: Annotated[float, typer.Option(help="Share of non-zero weights of a network by name.")] = 0.5,
    scales: Annotated[Scales, typer.Option(help="Of a network by name: Wp = Wn or not.")] = Scales.symmetric,
    peers: Annotated[str | None, typer.Option(help="With commas; default: all that are installed.")] = None,
    seconds: Annotated[float, typer.Option(help="Time to measure each batch size.")] = 20.0,
    isa: Annotated[str | None, typer.Option(help="Limit of our own instructions, such as avx2.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the JSON document here.")] = None,
    as_json: Json = False,
) -> None:
    """Time a network in our engine and in others, in turn, after checking what each computes."""
    if out is not None:
        check_place(out, Path(network))
    from tritkit.bench import Plan, run

    plan = Plan(
        network=network,
        density=density,
        scales=scales.value,
        batches=_numbers(batch),
        threads=threads,
        peers=None if peers is None else tuple(name.strip() for name in peers.split(",")),
        seconds=seconds,
        isa=isa,
    )
    facts = run(plan, talk)
    if out is not None:
        write_place(out, (json.dumps(facts, indent=1) + "\n").encode())
    emit(facts, as_json, _render)
    if plan.peers is not None and _any_not_timed(facts):
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise UserError(f"--batch takes whole numbers with commas, such as 1,64; given was {text!r}") from error


def _any_not_timed(facts: Facts) -> bool:
    return any(row["status"] != "timed" for cell in facts["cells"] for row in cell["rows"])


def _render(facts: Facts, console: Console) -> None:
    for cell in facts["cells"]:
        console.print(table(_COLUMNS, [_row(row) for row in cell["rows"]], _title(facts, cell)))
        for family in ("int8", "float"):
            if cell[f"ratio_to_fastest_{family}"] is not None:
                times = f"{cell[f'ratio_to_fastest_{family}']:.2f} of the time of {cell[f'fastest_{family}']}"
                say(console, f"Fastest {family}: tritkit takes {times}.")
        for row in cell["rows"]:
            if row["status"] != "timed":
                say(console, f"{row['engine']} {row['status']}: {row['note']}")
        if cell["others_busy"] > _BUSY:
            count = f"{cell['others_busy']:.1f}"
            say(console, f"Other programs kept {count} CPUs busy meanwhile: measure again on a quiet machine.")
        say(console, "")
    limit = facts["limit_macs_per_cycle"]
    if limit:
        say(
            console,
            f"Limit: {limit:g} int8 products a cycle and core, as the CPU's fastest instruction for them reaches here.",
        )
    say(console, "Ratio: tritkit's median over that engine's. Zero weights count as products.")


_BUSY = 0.1  # CPUs
_COLUMNS = ("engine", "median ms", "p10", "p90", "ratio", "MAC/cycle", "of limit", "file", "model", "process")


def _title(facts: Facts, cell: dict[str, Any]) -> str:
    density = "" if facts["density"] is None else f", density {facts['density']:.2f}, {facts['scales']} scales"
    plural = "s" * (cell["threads"] > 1)
    return f"{facts['network']}, batch {cell['batch']}, {cell['threads']} thread{plural}{density}"


def _row(row: dict[str, Any]) -> list[Any]:
    if row["status"] != "timed":
        return [row["engine"], row["status"], *[None] * (len(_COLUMNS) - 2)]
    cycle = row.get("macs_per_cycle")
    return [
        row["engine"],
        *(_ms(row[key]) for key in ("median_ms", "p10_ms", "p90_ms")),
        f"{row['ratio']:.2f}",
        None if cycle is None else f"{cycle:.1f}",
        percent(row.get("share_of_limit"), 0),
        kilobytes(row["file_bytes"]),
        _megabytes(row["model_bytes"]),
        _megabytes(row["resident_bytes"]),
    ]


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
