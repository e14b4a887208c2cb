"""Every speed that docs/performance.md shows: a record for each network, batch, thread count and kind of weights.

    python benchmarks/performance.py [--only 'resnet18*'] [--seconds 20] [--again]
    python benchmarks/performance_page.py        # makes docs/performance.md of the records, runs nothing

Records that exist are kept, so that an interrupted run goes on where it stopped; --again measures them anew. Run it
on a quiet machine, in an environment with all peers (requirements-peers.txt, requirements-litert.txt).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "performance"
WEIGHTS = (("symmetric", 0.5), ("asymmetric", 0.5), ("symmetric", 0.35))  # scales, share that is not zero

MATRIX: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # network: batch sizes, threads
    "resnet20": ((1, 64), (1, 2)),
    "resnet18": ((1, 8), (1, 2)),
    "resnet50": ((1, 8), (1, 2)),
    "alexnet-bn": ((1, 8), (1, 2)),
    "linear:4096x4096": ((1,), (1, 2)),
    "conv:64x64x56x56k3": ((1,), (1,)),
}


class Cell(NamedTuple):
    """What one record measures."""

    network: str
    batch: int
    threads: int
    scales: str
    density: float

    @property
    def name(self) -> str:
        share = f"d{round(100 * self.density)}"
        return f"{self.network.replace(':', '-')}-b{self.batch}-t{self.threads}-{self.scales}-{share}"


def cells() -> Iterator[Cell]:
    """Networks by network, so that its conversions are made once."""
    for network, (batches, threads) in MATRIX.items():
        for scales, density in WEIGHTS:
            for batch in batches:
                for count in threads:
                    yield Cell(network, batch, count, scales, density)


def machine_folder() -> Path:
    """Where the records of this machine are: a folder with the name of its CPU."""
    from tritkit.bench.facts import cpu_name

    return RESULTS / re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")


def commit() -> str:
    """Of the checkout; "+" says that files differ from it."""
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def measure(cell: Cell, seconds: float, peers: tuple[str, ...]) -> dict[str, object]:
    """The record of a cell, with all peers if none is named."""
    from tritkit.bench import Plan, run

    plan = Plan(cell.network, cell.density, cell.scales, (cell.batch,), cell.threads, peers or None, seconds)
    return {"commit": commit(), "seconds": seconds, **run(plan, lambda line: print(f"  {line}", file=sys.stderr))}


def show(record: dict) -> None:
    """One line an engine."""
    (cell,) = record["cells"]
    for row in cell["rows"]:
        result = f"{row['median_ms']:9.3f} ms  {row['ratio']:5.2f}" if row["status"] == "timed" else row["status"]
        print(f"    {row['engine']:20} {result}", flush=True)
    print(f"    others kept {cell['others_busy']:.2f} CPUs busy", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", help="pattern of record names, such as 'resnet18*-t2-*'")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure each cell")
    parser.add_argument("--peers", default="", help="only these engines, with commas; default: all installed")
    parser.add_argument("--again", action="store_true", help="measure records that exist anew")
    args = parser.parse_args()
    here = machine_folder()
    here.mkdir(parents=True, exist_ok=True)
    failed = []
    for cell in cells():
        path = here / f"{cell.name}.json"
        if not fnmatchcase(cell.name, args.only) or (path.is_file() and not args.again):
            continue
        print(cell.name, flush=True)
        try:
            record = measure(cell, args.seconds, tuple(filter(None, args.peers.split(","))))
        except Exception as error:  # a cell that fails must not cost the others
            print(f"    {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(cell.name)
            continue
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(path)
        show(record)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
