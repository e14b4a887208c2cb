"""How busy the machine was with something else while engines were timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, interrupts, soft interrupts of the first line of /proc/stat
_USER, _SYSTEM = 11, 12  # of /proc/PID/stat behind the name


class Others:
    """CPU time of all processes but ours, from when it is made."""

    def __init__(self, ours: Iterable[int]) -> None:
        self._ours = (os.getpid(), *ours)
        self._start, self._then = self._ticks(), time.monotonic()

    def busy(self) -> float:
        """CPUs that others kept busy on average: 0 is a quiet machine, 1 is one whole CPU."""
        seconds = (self._ticks() - self._start) / os.sysconf("SC_CLK_TCK")
        return max(0.0, seconds / max(time.monotonic() - self._then, 1e-9))

    def _ticks(self) -> float:
        times = [float(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(times[i] for i in _BUSY) - sum(_own_ticks(pid) for pid in self._ours)


def _own_ticks(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended; its time counts as that of others
        return 0.0
    return float(words[_USER]) + float(words[_SYSTEM])
