"""What is to be measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tritkit.errors import UserError

SCALES = ("symmetric", "asymmetric")
ISAS = ("scalar", "avx2", "avxvnni", "avx512vnni", "amx")


@dataclass(frozen=True)
class Plan:
    """A network and the ways it is run.

    network: a name ("resnet20", "resnet18", …), a layer ("conv:64x64x56x56k3", "linear:4096x4096"), or a path of an
        ONNX file of ours, which is taken as it is.
    density: share of weights that are not zero in a network by name, 0 < density ≤ 1.
    scales: "symmetric" (Wp = Wn) or "asymmetric".
    batches, threads: images a run, threads of every engine; threads are pinned to as many CPUs.
    peers: names of the engines to compare with; None takes all that are installed and can run the network.
    seconds: time for the measurement of a batch size, all engines together.
    isa: limit of our own engine's instructions, as `Session` takes it.
    """

    network: str
    density: float = 0.5
    scales: str = "symmetric"
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    peers: tuple[str, ...] | None = None
    seconds: float = 20.0
    seed: int = 0
    isa: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise UserError(f"density must be above 0 and at most 1, got {self.density}")
        if self.scales not in SCALES:
            raise UserError(f"scales must be one of {', '.join(SCALES)}, got {self.scales!r}")
        if not self.batches or any(not 1 <= batch <= 4096 for batch in self.batches):
            raise UserError(f"batches must be 1 to 4096, got {list(self.batches)}")
        if not 0 < self.seconds <= 86_400:
            raise UserError(f"seconds must be above 0 and at most a day, got {self.seconds}")
        if self.isa is not None and self.isa not in ISAS:
            raise UserError(f"isa must be one of {', '.join(ISAS)}, got {self.isa!r}")
        self.cpus()

    def cpus(self) -> tuple[int, ...]:
        """The CPUs that all engines are pinned to, one a thread."""
        usable = _usable_cpus()
        if not 1 <= self.threads <= len(usable):
            raise UserError(
                f"threads must be 1 to {len(usable)}, the CPUs of this process, got {self.threads}; engines that "
                "share a CPU among their threads would not be compared fairly"
            )
        return tuple(usable[: self.threads])


def _usable_cpus() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    raise UserError("the bench pins its processes to CPUs, which needs Linux; run it there")
