"""The processes that train one network together: what `torchrun` starts, or this process alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tritkit.errors import TritkitError, UserError
from tritkit.processes import ALONE, Processes

_CPU = torch.device("cpu")
_PATIENCE = timedelta(minutes=10)  # for a process that does not answer
_LOST = ("gloo", "nccl", "connection", "broken pipe", "timed out", "socket")  # in errors of a collective operation
_RESUMED = "the same command goes on from the last checkpoint, on any number of processes"
_T = TypeVar("_T", Tensor, Sequence[int])
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `world`, and computes on `device`. The first one writes files and talks."""

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU
    here: int = 1  # processes on this machine

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: _T) -> _T:
        """This process's part of a batch, along the first dimension: equal parts in the order of the processes."""
        each = len(batch) // self.world
        return batch[self.rank * each : (self.rank + 1) * each]

    def split(self, count: int, unit: int = 1) -> tuple[range, Processes]:
        """This process's part of `count` things in a row, in whole units (a rest goes to the last), and whom it shares
        them with. Where there are fewer units than processes, each takes all of them for itself.
        """
        units = count // unit
        if self.world == 1 or units < self.world:
            return range(count), ALONE
        first, end = (units * rank // self.world * unit for rank in (self.rank, self.rank + 1))
        return range(first, count if self.rank == self.world - 1 else end), self

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all processes, in float64."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def gather(self, mine: list[_Row]) -> list[_Row]:
        """The rows of all processes."""
        if self.world == 1:
            return mine
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, mine)
        return [row for part in found for row in part]

    def total(self, mine: Tensor) -> Tensor:
        """The sum over all processes, element by element."""
        if self.world == 1:
            return mine
        total = mine.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(mine.device)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


_QUIET = 0.2
"""Seconds, without the interpreter's lock: Gloo's threads outlive the group, and one that still has to drop a tensor of
the last exchange, for which it needs the lock, aborts the process once Python ends."""


@contextmanager
def joined(again: str = _RESUMED) -> Iterator[Ranks]:
    """The processes of the job that torchrun started this one in (by its environment), else this process alone.

    A CUDA device is used where there is one: NCCL between them, Gloo between CPUs. When another process of the job
    ends, this one raises a TritkitError that says so, and `again`: what to do then.
    """
    rank, world, local = (_number(name, other) for name, other in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    device = _device(local)
    if world == 1:
        yield Ranks(device=device)
        return
    if dist.is_initialized():
        raise UserError("a process group exists already; call train where torchrun's processes begin")
    ranks = Ranks(rank, world, device, _number("LOCAL_WORLD_SIZE", world))
    with _told(ranks, again):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        yield ranks
        dist.destroy_process_group()
        if device.type == "cpu":
            time.sleep(_QUIET)


def _number(name: str, other: int) -> int:
    given = os.environ.get(name, str(other))
    if not given.isdigit():
        raise UserError(f"the environment variable {name} is {given!r}; start processes with torchrun, which sets it")
    return int(given)


def _device(local: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise UserError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what its deterministic algorithms ask for
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def _told(ranks: Ranks, hint: str) -> Iterator[None]:
    """Turn a lost process, and torchrun's signal after one, into a sentence."""
    who = f"process {ranks.rank} of {ranks.world}"

    def ended(number: int, frame: FrameType | None) -> None:
        raise TritkitError(f"{who} was told to end, as torchrun does when another has ended; {hint}")

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise TritkitError(f"{who} has lost another one, which ended or does not answer; {hint}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
