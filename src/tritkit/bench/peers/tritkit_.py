"""Our own engine. TRITKIT_ISA limits its instructions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritkit import __version__
from tritkit.bench.peers._base import Array, Peer
from tritkit.runtime import Session

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload


class Tritkit(Peer):
    family = "ours"
    modules = ("numpy", "tritkit.runtime")
    packages = ("tritkit",)

    def versions(self) -> dict[str, str]:
        return {"tritkit": __version__}

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        """Our file is part of the workload."""

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        self._session = Session(work.ternary_file, threads=threads)

    def run(self, images: Array) -> Array:
        return np.asarray(self._session.run(images))

    def check(self) -> str:
        """The kernels of the layers, most macs first."""
        work: Counter[str] = Counter()
        for step in self._session.summary():
            if step.macs:
                work[step.kernel] += step.macs
        total = sum(work.values())
        return ", ".join(f"{kernel} {macs / total:.0%}" for kernel, macs in work.most_common())

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return work.ternary_file.stat().st_size
