"""Statistics by hand, the order of slices, validation, and the clock's machine code."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest

from tritkit.bench import clock
from tritkit.bench.shape import Shape
from tritkit.bench.stats import fastest, macs_per_cycle, summary
from tritkit.bench.timing import LEAST_ROUNDS, measure
from tritkit.bench.validation import check_peer
from tritkit.bench.workers import WorkerError


def test_summary_by_hand() -> None:
    # eleven samples: the 10th percentile is the second, the 90th the tenth
    ns = [11_000_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]
    ns += [6_000_000, 7_000_000, 8_000_000, 9_000_000, 10_000_000]
    assert summary(ns) == {"median_ms": 6.0, "p10_ms": 2.0, "p90_ms": 10.0, "min_ms": 1.0, "runs": 11}


def test_an_even_number_of_samples_has_its_median_between_two() -> None:
    assert summary([1_000_000, 2_000_000])["median_ms"] == 1.5


def test_macs_per_cycle_by_hand() -> None:
    # 40 million products in 1 ms on two cores of 2 GHz: four million core cycles
    assert macs_per_cycle(40_000_000, 1e-3, 2e9, 2) == pytest.approx(10.0)


def test_the_fastest_of_a_family_is_one_that_was_timed() -> None:
    rows = [
        {"engine": "a", "family": "int8", "status": "timed", "median_ms": 2.0},
        {"engine": "b", "family": "int8", "status": "wrong"},
        {"engine": "c", "family": "int8", "status": "timed", "median_ms": 1.0},
        {"engine": "d", "family": "float", "status": "timed", "median_ms": 0.5},
    ]
    assert fastest(rows, "int8") is rows[2]
    assert fastest(rows, "float") is rows[3]
    assert fastest(rows[:2], "float") is None


class Fake:
    """An engine that writes down when it runs; nobody may be asked while stopped, or run while another does."""

    def __init__(self, name: str, log: list[str], running: set[str], fails_at: int | None = None) -> None:
        self.name, self.log, self.running, self.left = name, log, running, fails_at

    def ask(self, seconds: float, do: str, **message: Any) -> dict[str, Any]:
        assert do == "slice"
        assert self.running == {self.name}
        self.log.append(self.name)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.running.clear()
                raise WorkerError("fell over")
        return {"ns": [len(self.log)]}

    def stop(self) -> None:
        self.running.remove(self.name)

    def go_on(self) -> None:
        self.running.add(self.name)


def _clock(step: float) -> Any:
    times = iter(np.arange(0, 1000, step))
    return lambda: float(next(times))


def test_engines_run_in_turn_alone_and_the_order_turns() -> None:
    log: list[str] = []
    running: set[str] = set()
    engines = {name: Fake(name, log, running) for name in "abc"}
    timing = measure(engines, 1.5, lambda: 2e9, _clock(1.0))
    assert "".join(log) == "abcbcacababc"
    assert timing.rounds == 4
    assert timing.nanoseconds == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}
    assert timing.hertz == [2e9] * 4
    assert (running, timing.failed) == (set(), {})


def test_however_short_the_time_there_are_some_rounds() -> None:
    log: list[str] = []
    timing = measure({"a": Fake("a", log, set())}, 1e-9, lambda: None, _clock(1.0))
    assert (timing.rounds, timing.hertz) == (LEAST_ROUNDS, [])


def test_an_engine_that_fails_is_left_out_and_the_others_go_on() -> None:
    log: list[str] = []
    running: set[str] = set()
    engines = {"a": Fake("a", log, running), "b": Fake("b", log, running, fails_at=1), "c": Fake("c", log, running)}
    timing = measure(engines, 1e-9, lambda: None, _clock(1.0))
    assert timing.failed == {"b": "fell over"}
    assert {name: len(ns) for name, ns in timing.nanoseconds.items()} == {"a": 3, "b": 1, "c": 3}


def test_nothing_is_left_to_time_when_all_have_failed() -> None:
    timing = measure({"a": Fake("a", [], set(), fails_at=0)}, 100.0, lambda: None, _clock(1.0))
    assert timing.failed == {"a": "fell over"}


def test_validation_by_hand() -> None:
    expected = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    assert check_peer(expected * 2 + 5, expected) == (pytest.approx(1.0), None)
    # deviations (−1.5, −.5, .5, 1.5) and (−1, −1, 1, 1): 4 / sqrt(5 · 4)
    correlation, wrong = check_peer(np.array([[1, 1, 3, 3]], np.float32), expected)
    assert correlation == pytest.approx(4 / 20**0.5)
    assert wrong is not None
    assert "0.894" in wrong
    for broken, word in ((expected.T, "shape"), (expected * np.nan, "NaN"), (expected * 0, "0.000")):
        assert word in str(check_peer(broken, expected)[1])


# what an assembler makes of these, by the Intel manual's encoding (checked with GNU as)
EVEX = {(0, 24, 25): "62923d4050c1", (8, 24, 25): "62123d4050c1", (23, 24, 25): "62823d4050f9"}
VEX = {(0, 14, 15): "c4c20d50c7", (13, 14, 15): "c4420d50ef"}
TILES = {(0, 6, 7): "c4e2415ec6", (5, 6, 7): "c4e2415eee", (2, 1, 3): "c4e2615ed1"}


def test_the_dot_product_instructions_are_encoded_right() -> None:
    assert {key: clock.evex_vpdpbusd(*key).hex() for key in EVEX} == EVEX
    assert {key: clock.vex_vpdpbusd(*key).hex() for key in VEX} == VEX
    assert {key: clock.tdpbusd(*key).hex() for key in TILES} == TILES


def test_the_clock_is_one_a_cpu_can_have() -> None:
    if platform.machine() != "x86_64":
        assert clock.hertz() is None
        return
    speed = clock.hertz()
    assert speed is not None
    assert 0.3e9 < speed < 10e9
    rate = clock.dot_products_per_cycle()
    assert rate is None or 8 < rate < 600
    tiles = clock.tile_products_per_cycle()
    assert (tiles is None) == (clock._tile_loop() is None)
    assert tiles is None or 100 < tiles < 5000


def test_the_first_images_do_not_depend_on_how_many_there_are() -> None:
    for shape in (Shape("network", (3, 40, 40)), Shape("linear", (9,), positive=True)):
        few, many = shape.images(2, seed=3), shape.images(7, seed=3)
        assert few.tobytes() == many[:2].tobytes()
        assert not np.array_equal(many[0], many[1])
