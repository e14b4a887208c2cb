"""A plan from beginning to end: make the network, check every engine, time them in turn, put the numbers together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tritkit.bench import clock
from tritkit.bench.facts import machine_facts
from tritkit.bench.peers import OURS, load_peer, places
from tritkit.bench.plan import Plan
from tritkit.bench.quiet import Others
from tritkit.bench.stats import fastest, macs_per_cycle, summary
from tritkit.bench.timing import Timing, measure
from tritkit.bench.validation import check_ours, check_peer, expected_output
from tritkit.bench.workers import WorkerError, WorkerProcess
from tritkit.bench.workload import Array, Workload, cached, make
from tritkit.errors import TritkitError, UserError

Row = dict[str, Any]
Say = Callable[[str], None]

_PREPARE_LIMIT, _LOAD_LIMIT = 1800.0, 600.0  # seconds
FORMAT = 1


def run(plan: Plan, say: Say = lambda line: None) -> dict[str, Any]:
    """Everything measured, as plain data.

    cells: one for each batch size, with a row an engine. Ratios are our median over the other's, so 0.5 is half its
    time; at the top level stands the worst of all batch sizes, None where no such peer was timed.

    Raises UserError where a named peer is missing or cannot run the network, TritkitError where our own result is not
    that of the reference or our engine fails.
    """
    wanted = places(plan.peers)
    _check_named(plan, wanted)
    say(f"making {plan.network}")
    machine = machine_facts(plan.cpus())
    work = make(plan)
    limit = clock.products_per_cycle()
    cells = [_Cell(plan, work, batch, wanted, limit, say).run() for batch in plan.batches]
    return {
        "format": FORMAT,
        "network": plan.network,
        "density": work.facts["density"],
        "scales": "symmetric" if work.facts["symmetric"] else "asymmetric",
        "threads": plan.threads,
        "ratio_to_fastest_int8": _worst(cells, "int8"),
        "ratio_to_fastest_float": _worst(cells, "float"),
        "cells": cells,
        "workload": work.facts,
        "limit_macs_per_cycle": limit,
        "machine": machine,
    }


def _check_named(plan: Plan, wanted: dict[str, str]) -> None:
    for name, place in wanted.items() if plan.peers is not None else ():
        why = load_peer(place).missing()
        if why:
            raise UserError(f"the peer {name} cannot run: {why}")


def _worst(cells: list[dict[str, Any]], family: str) -> float | None:
    found = [cell[f"ratio_to_fastest_{family}"] for cell in cells]
    return None if None in found else max(found)


class _Cell:
    """One batch size."""

    def __init__(
        self, plan: Plan, work: Workload, batch: int, wanted: dict[str, str], limit: float | None, say: Say
    ) -> None:
        self.plan, self.work, self.batch, self.wanted, self.limit, self.say = plan, work, batch, wanted, limit, say
        self.expected = expected_output(work, batch)

    def run(self) -> dict[str, Any]:
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(TemporaryDirectory()))
            engines: dict[str, WorkerProcess] = {}
            rows = [self._ready(name, place, scratch, stack, engines) for name, place in self.wanted.items()]
            self.say(f"batch {self.batch}: timing {len(engines)} engines for {self.plan.seconds:g} s")
            others = Others(engine.pid for engine in engines.values())
            timing = measure(engines, self.plan.seconds, clock.hertz)
            busy = others.busy()
            self._finish(rows, engines, timing)
        return self._facts(rows, timing) | {"others_busy": busy, "rows": rows}

    def _ready(self, name: str, place: str, scratch: Path, stack: ExitStack, engines: dict[str, WorkerProcess]) -> Row:
        """A row with status and checks; an engine that may be timed is left stopped in `engines`."""
        peer = load_peer(place)
        row: Row = {"engine": name, "family": peer.family, "status": "timed", "note": ""}
        if why := peer.missing():
            return row | {"status": "missing", "note": why}
        if why := peer.unsupported(self.work.facts, self.batch):
            return row | {"status": "unsupported", "note": why}
        self.say(f"batch {self.batch}: preparing {name}")
        try:
            folder = self._prepared(name, place)
            worker = stack.enter_context(WorkerProcess(name, self.plan.threads, self.plan.isa))
            row |= worker.ask(_LOAD_LIMIT, "load", **self._where(place, folder), cpus=self.plan.cpus())
            worker.ask(_LOAD_LIMIT, "output", path=str(scratch / f"{name}.npy"))
            row |= worker.ask(_LOAD_LIMIT, "check")
        except WorkerError as error:
            return self._fallen(row, "failed", str(error))
        wrong = self._wrong(name, np.load(scratch / f"{name}.npy"), row)
        if wrong:
            return self._fallen(row, "wrong", wrong)
        worker.stop()
        engines[name] = worker
        return row

    def _prepared(self, name: str, place: str) -> Path:
        """The folder with the converted network."""

        def fill(folder: Path) -> None:
            with WorkerProcess(name, self.plan.threads) as worker:
                worker.ask(_PREPARE_LIMIT, "prepare", **self._where(place, folder))

        versions = sorted(load_peer(place).versions().items())
        return cached(("prepared", place, self.batch, self.work.folder.name, versions), fill)

    def _where(self, place: str, folder: Path) -> dict[str, Any]:
        work, threads = str(self.work.folder), self.plan.threads
        return {"peer": place, "work": work, "folder": str(folder), "batch": self.batch, "threads": threads}

    def _wrong(self, name: str, output: Array, row: Row) -> str | None:
        if name == OURS:
            return check_ours(output, self.work)
        row["correlation"], wrong = check_peer(output, self.expected)
        return wrong

    def _fallen(self, row: Row, status: str, why: str) -> Row:
        if row["engine"] == OURS:
            raise TritkitError(f"our own engine {status} on {self.plan.network}, batch {self.batch}: {why}")
        self.say(f"batch {self.batch}: {row['engine']} {status}: {why}")
        return row | {"status": status, "note": why}

    def _finish(self, rows: list[Row], engines: dict[str, WorkerProcess], timing: Timing) -> None:
        """Add the numbers to the rows of the engines that were timed to the end."""
        hertz = float(np.median(timing.hertz)) if timing.hertz else None
        for i, row in enumerate(rows):
            name = row["engine"]
            if name in timing.failed:
                rows[i] = self._fallen(row, "failed", timing.failed[name])
            elif name in engines:
                row |= summary(timing.nanoseconds[name]) | self._memory(engines[name])
                self._cycles(row, hertz)
        ours = next(row for row in rows if row["engine"] == OURS)
        for row in rows:
            if row["status"] == "timed":
                row["ratio"] = ours["median_ms"] / row["median_ms"]

    def _memory(self, engine: WorkerProcess) -> dict[str, Any]:
        engine.go_on()
        return engine.ask(_LOAD_LIMIT, "memory")

    def _cycles(self, row: Row, hertz: float | None) -> None:
        if hertz is None:
            return
        macs = self.work.facts["macs"] * self.batch
        row["macs_per_cycle"] = macs_per_cycle(macs, row["median_ms"] / 1000, hertz, self.plan.threads)
        if self.limit:
            row["share_of_limit"] = row["macs_per_cycle"] / self.limit

    def _facts(self, rows: list[Row], timing: Timing) -> dict[str, Any]:
        facts: dict[str, Any] = {"batch": self.batch, "threads": self.plan.threads, "rounds": timing.rounds}
        facts["hertz"] = float(np.median(timing.hertz)) if timing.hertz else None
        for family in ("int8", "float"):
            row = fastest(rows, family)
            facts[f"fastest_{family}"] = row["engine"] if row else None
            facts[f"ratio_to_fastest_{family}"] = row["ratio"] if row else None
        return facts
