"""The process of one engine: reads commands as JSON lines, answers each with one JSON line.

    {"do": "load", "peer": "module:Class", "work": folder, "folder": folder, "batch": 1, "threads": 2, "cpus": [0, 1]}

Answers are {"ok": {…}} or {"error": "one sentence"}. The engine's own talk goes to standard error.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tritkit.bench.peers import load_peer
from tritkit.bench.peers._base import Peer
from tritkit.bench.workload import Workload

_PR_SET_PDEATHSIG = 1
_WARM_RUNS = 2

Message = dict[str, Any]


class Worker:
    """Does what the commands say, one method each."""

    def __init__(self) -> None:
        self._peer: Peer
        self._work: Workload
        self._folder: Path
        self._images: Any

    def prepare(self, m: Message) -> Message:
        """Convert the network into `folder`."""
        load_peer(m["peer"]).prepare(Workload(Path(m["work"])), m["batch"], Path(m["folder"]))
        return {}

    def load(self, m: Message) -> Message:
        """Pin this process, make the engine ready, and run it once. `model_bytes`: what that added to its memory."""
        os.sched_setaffinity(0, m["cpus"])
        self._peer, self._work, self._folder = load_peer(m["peer"]), Workload(Path(m["work"])), Path(m["folder"])
        for module in self._peer.modules:
            importlib.import_module(module)
        images = self._work.images(m["batch"])
        before = resident_bytes()
        start = time.perf_counter()
        self._peer.load(self._work, m["batch"], self._folder, m["threads"])
        seconds = time.perf_counter() - start
        self._images = self._peer.arrange(images)
        self._peer.run(self._images)
        return {
            "load_seconds": seconds,
            "model_bytes": resident_bytes() - before,
            "file_bytes": self._peer.file_bytes(self._work, self._folder),
            "versions": self._peer.versions(),
        }

    def output(self, m: Message) -> Message:
        """Write the engine's output for the images to `path`."""
        np.save(m["path"], np.asarray(self._peer.run(self._images)))
        return {}

    def check(self, m: Message) -> Message:
        """Is it the engine that its name says?"""
        return {"checked": self._peer.check()}

    def slice(self, m: Message) -> Message:
        """Nanoseconds of runs for about `length` seconds, at least `least`; those of the first `warm` do not count."""
        run, images = self._peer.run, self._images
        _repeat(run, images, m["warm"], _WARM_RUNS)
        return {"ns": _repeat(run, images, m["length"], m["least"])}

    def memory(self, m: Message) -> Message:
        """Bytes of this process in memory."""
        return {"resident_bytes": resident_bytes()}


def _repeat(run: Callable[[Any], Any], images: Any, seconds: float, least: int) -> list[int]:
    taken: list[int] = []
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    while len(taken) < least or clock() < end:
        start = clock()
        run(images)
        taken.append(clock() - start)
    return taken


def resident_bytes() -> int:
    """Of this process, shared libraries included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answer until the commands end."""
    worker = Worker()
    for line in commands:
        message = json.loads(line)
        try:
            answer = {"ok": getattr(worker, message["do"])(message)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Die with the parent, even when stopped; keep standard output for the answers alone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
