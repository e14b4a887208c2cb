"""Engines in turn, a short slice each, round after round, so that each meets the machine in the same moods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tritkit.bench.workers import WorkerError

SLICE_SECONDS, WARM_SECONDS = 0.05, 0.01
LEAST_RUNS = 5  # of an engine in a slice
LEAST_ROUNDS = 3
_SLICE_LIMIT = 120.0  # seconds until a slice counts as hanging


class Engine(Protocol):
    """What is timed: a process that can be stopped and asked."""

    def ask(self, seconds: float, do: str, **message: Any) -> dict[str, Any]: ...
    def stop(self) -> None: ...
    def go_on(self) -> None: ...


@dataclass
class Timing:
    """Nanoseconds of every run of each engine; why an engine fell out; rounds; clock readings in hertz."""

    nanoseconds: dict[str, list[int]]
    failed: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    hertz: list[float] = field(default_factory=list)


def measure(
    engines: Mapping[str, Engine],
    seconds: float,
    hertz: Callable[[], float | None],
    now: Callable[[], float] = time.monotonic,
) -> Timing:
    """Time all engines, which are stopped, for about `seconds` together; they are stopped again afterwards.

    The order turns by one place each round. An engine that fails is left out from then on.
    """
    timing = Timing({name: [] for name in engines})
    end = now() + seconds
    order = list(engines)
    while order and (timing.rounds < LEAST_ROUNDS or now() < end):
        for name in list(order):
            try:
                timing.nanoseconds[name] += _slice(engines[name])
            except WorkerError as error:
                timing.failed[name] = str(error)
                order.remove(name)
        timing.rounds += 1
        order = order[1:] + order[:1]
        reading = hertz()
        if reading is not None:
            timing.hertz.append(reading)
    return timing


def _slice(engine: Engine) -> list[int]:
    engine.go_on()
    answer = engine.ask(_SLICE_LIMIT, "slice", length=SLICE_SECONDS, least=LEAST_RUNS, warm=WARM_SECONDS)
    engine.stop()
    taken: list[int] = answer["ns"]
    return taken
