"""`tritkit demo`: a float network against its ternary versions, everything measured in this run.

`networks` makes them, `engines` runs them everywhere, `timing` takes the time, `render` prints the facts.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tritkit.cli.output import Facts, Json, emit, talk
from tritkit.errors import TritkitError

_FOLDER = Path("runs/demo")


def command(
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Default: all CPUs, 2 at most.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer images and shorter timings.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of CIFAR-10, for the error on all test images.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the exported network goes.")] = _FOLDER,
    as_json: Json = False,
) -> None:
    """Ternarize a network, run it on every engine, and print float against ternary: error, bytes, speed."""
    facts = run_demo(threads or min(2, _cpus()), quick, data, out)
    from tritkit.cli.demo.render import render

    emit(facts, as_json, render)
    differing = [row["engine"] for row in facts["equality"] if not row["same_bits"]]
    if differing:
        raise TritkitError(f"these engines gave other bits: {', '.join(differing)}; please report it with this output")


def run_demo(threads: int, quick: bool, data: Path | None, out: Path) -> Facts:
    """The facts of the whole demonstration; progress goes to standard error."""
    began = time.perf_counter()
    talk("1/4 making the float network ternary without training: TWN, batch norm, ranges, export")
    from tritkit.cli.demo import engines, networks, timing

    made = networks.make(threads, data, out)
    talk(f"2/4 errors on {len(made.images):,} packaged images" + (" and the whole test set" if made.test else ""))
    rows = networks.errors(made, threads)
    talk("3/4 the same bits on every engine?")
    equality = engines.compare(made, threads, quick)
    talk("4/4 milliseconds a picture")
    speed = timing.speeds(made, threads, quick)
    return {
        "networks": rows,
        "equality": equality,
        "speed": speed,
        "threads": threads,
        "sample_images": len(made.images),
        "files": {"post_training": str(made.post_training), "trained": str(made.trained)},
        "peak_memory_bytes": _peak_memory(),
        "seconds": time.perf_counter() - began,
        "next": f"tritkit inspect {made.post_training}",
    }


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peak_memory() -> int | None:
    """Bytes of this process at its largest; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
