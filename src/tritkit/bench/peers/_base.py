"""What a peer is: an engine that is given the network, converts it by its own tools, and is timed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload

Array = NDArray[np.float32]


class PeerError(Exception):
    """The engine does not run as it is meant to be measured; the message says what was found."""


class Peer(ABC):
    """One engine in one precision. An instance lives in a process of its own.

    family:     "ours", "int8" or "float": which fastest engine it counts for.
    modules:    the engine: imported before its memory is measured.
    converters: what else must be installed to convert networks for it; never imported where it is timed.
    packages:   what to install for both; their versions are reported.
    """

    family: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    converters: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]]

    def missing(self) -> str | None:
        """What is not installed and how to get it; None if it can run."""
        lacking = [m for m in (*self.modules, *self.converters) if not _importable(m)]
        if not lacking:
            return None
        return f"{', '.join(lacking)} not installed; pip install {' '.join(self.packages)}"

    def unsupported(self, facts: dict[str, Any], batch: int) -> str | None:
        """Why this network cannot be given to the engine; None if it can."""
        return None

    def versions(self) -> dict[str, str]:
        """Version of each package."""
        return {name: importlib.metadata.version(name) for name in self.packages}

    @abstractmethod
    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        """Convert the network and write what `load` needs into `folder`. May be slow; its results are cached."""

    @abstractmethod
    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        """Make the engine ready to run with that many threads."""

    def arrange(self, images: Array) -> Any:
        """Float32 images [N, ...] in the memory layout that suits the engine best; done once, not timed."""
        return images

    @abstractmethod
    def run(self, images: Any) -> Array:
        """The network's output for what `arrange` gave. This is what is timed."""

    def check(self) -> str:
        """One phrase: how it was verified that the engine does what its name says. Raises PeerError if it does not."""
        return "not checked"

    @abstractmethod
    def file_bytes(self, work: Workload, folder: Path) -> int:
        """Size of the model as the engine reads it."""


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
