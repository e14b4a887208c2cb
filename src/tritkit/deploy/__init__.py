"""From a network to a file: lower to the integer graph, write it as ONNX, run it in NumPy and PyTorch.

    report = tritkit.export(net, "net.onnx", example, calibration=batches)

The contract is docs/format.md. Reading and writing files needs the onnx package; the rest does not.
"""

from __future__ import annotations

import importlib
from typing import Any

from tritkit.deploy.exporting import ExportReport, export
from tritkit.deploy.graph import Graph
from tritkit.deploy.lower import lower
from tritkit.deploy.reference import Reference
from tritkit.deploy.simulate import Simulation

_NEEDS_ONNX = {"from_onnx": "tritkit.deploy.onnx_reader", "to_onnx": "tritkit.deploy.onnx_writer"}

__all__ = ["ExportReport", "Graph", "Reference", "Simulation", "export", "from_onnx", "lower", "to_onnx"]


def __getattr__(name: str) -> Any:
    if name in _NEEDS_ONNX:
        return getattr(importlib.import_module(_NEEDS_ONNX[name]), name)
    raise AttributeError(f"module 'tritkit.deploy' has no attribute {name!r}")
