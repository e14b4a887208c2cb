"""Engines that behave, and engines that do not. The worker processes of the tests import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from tritkit.bench.peers._base import Peer
from tritkit.bench.workload import Workload


class Right(Peer):
    """Gives what the float network gives."""

    family = "float"
    modules = ("numpy",)
    packages = ("numpy",)

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        (folder / "made").write_text(str(batch))

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        assert (folder / "made").read_text() == str(batch)
        self._result = np.load(work.folder / f"expected-{batch}.npy")

    def run(self, images: Any) -> Any:
        return self._result

    def check(self) -> str:
        return f"pinned to {sorted(os.sched_getaffinity(0))}, OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}"

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return 4


class Noisy(Right):
    """int8-like: a little off."""

    family = "int8"

    def run(self, images: Any) -> Any:
        print("engines talk on standard output")
        return self._result + np.float32(0.01) * np.resize(np.array([1, -1], np.float32), self._result.shape)


class WrongLayout(Right):
    """The outputs in another order."""

    def run(self, images: Any) -> Any:
        return self._result[:, ::-1].copy()


class NotFinite(Right):
    def run(self, images: Any) -> Any:
        return np.full_like(self._result, np.nan)


class WrongShape(Right):
    def run(self, images: Any) -> Any:
        return self._result[:, :1]


class Unconvertible(Right):
    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        raise RuntimeError("no such operation")


class Crashes(Right):
    """Dies in the fourth run, which is one that is timed."""

    _runs = 0

    def run(self, images: Any) -> Any:
        self._runs += 1
        if self._runs > 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self._result


class Hangs(Right):
    """Does not come back from the fourth run."""

    _runs = 0

    def run(self, images: Any) -> Any:
        self._runs += 1
        if self._runs > 3:
            time.sleep(3600)
        return self._result


class NotInstalled(Right):
    modules = ("a_package_that_nobody_has",)
    packages = ("a-package-that-nobody-has",)


class NotForThis(Right):
    def unsupported(self, facts: dict[str, Any], batch: int) -> str | None:
        return f"takes no {facts['kind']}"


class NotWhatItSays(Right):
    def check(self) -> str:
        raise RuntimeError("layers ran in float32")
