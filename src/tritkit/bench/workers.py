"""The parent's side of an engine's process: start it, ask it with a time limit, let it sleep, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tritkit.runtime import library_path

_CHANGING_THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ORT_", "DNNL_", "ONEDNN_", "TRITKIT_")
_KEPT = ("TRITKIT_CACHE", "TRITKIT_LITERT_PYTHON")
_LAST_WORDS = 300  # characters


class WorkerError(Exception):
    """The process answered with an error, ended, or did not answer in time."""


class WorkerProcess:
    """One engine in a process of its own.

    name: for messages. threads: what OpenMP and the like are told. isa: TRITKIT_ISA of the process.
    """

    def __init__(self, name: str, threads: int, isa: str | None = None) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tritkit.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment(threads, isa),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, seconds: float, do: str, **message: Any) -> dict[str, Any]:
        """The answer to a command. Raises WorkerError for an error, after which the process may be used no more where
        it has ended or did not answer within `seconds`.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **message}).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise WorkerError(self._ended()) from error
        try:
            answer = json.loads(self._line(time.monotonic() + seconds, seconds))
        except ValueError as error:
            raise WorkerError("answered with no JSON") from error
        if "error" in answer:
            raise WorkerError(str(answer["error"]))
        found: dict[str, Any] = answer["ok"]
        return found

    def stop(self) -> None:
        """Take it off the CPU: no thread of it runs, none spins."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, in whatever state it is."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _line(self, end: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._process.kill()
                raise WorkerError(f"did not answer within {seconds:.0f} s and was ended")
            read = os.read(handle, 1 << 16)
            if not read:
                raise WorkerError(self._ended())
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self) -> str:
        """How the process ended, with the last line it wrote to standard error."""
        code = self._process.wait()
        how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        self._said.seek(0)
        words = self._said.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {words[-1][:_LAST_WORDS]}" if words else how


def environment(threads: int, isa: str | None) -> dict[str, str]:
    """Ours, without what would change an engine's threads or kernels behind its back."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_CHANGING_THREADS) or k in _KEPT}
    source = str(Path(__file__).parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH")) if p)
    kept["OMP_NUM_THREADS"] = str(threads)
    kept["TRITKIT_LIBRARY"] = str(library_path())
    if isa is not None:
        kept["TRITKIT_ISA"] = isa
    return kept
