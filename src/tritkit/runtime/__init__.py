"""Run ternary networks: `Session` over libtritkit. Needs NumPy and nothing else."""

from __future__ import annotations

from tritkit.runtime._library import Kernel, kernels, library_path, library_version
from tritkit.runtime.session import Session, StepInfo, StepTime, ValueInfo, as_table

__all__ = [
    "Kernel",
    "Session",
    "StepInfo",
    "StepTime",
    "ValueInfo",
    "as_table",
    "kernels",
    "library_path",
    "library_version",
]
