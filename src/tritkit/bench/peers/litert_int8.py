"""LiteRT in int8 with its XNNPACK delegate: converted by litert-torch, quantized statically by ai-edge-quantizer.

The converter brings a gigabyte of packages that other engines do not like beside them; TRITKIT_LITERT_PYTHON names the
Python of an environment made for it (benchmarks/requirements-litert.txt). Running needs ai-edge-litert only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritkit.bench.peers._base import Array, Peer, PeerError

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload

_LAYERS = {"CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"}
_CONVERSION_LIMIT = 1700  # seconds


class LiteRtInt8(Peer):
    family = "int8"
    modules = ("ai_edge_litert",)
    packages = ("ai-edge-litert",)

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        named = os.environ.get("TRITKIT_LITERT_PYTHON")
        python = named or sys.executable
        command = [python, "-m", "tritkit.bench.litert_conversion", str(work.folder), str(batch), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CONVERSION_LIMIT, check=False)
        if done.returncode:
            words = (done.stderr.strip() or "no message").splitlines()[-1]
            hint = "pip install -r benchmarks/requirements-litert.txt elsewhere and name it in TRITKIT_LITERT_PYTHON"
            by = "TRITKIT_LITERT_PYTHON" if named else "this environment"  # no path: the message goes into records
            raise PeerError(f"the conversion by {by} failed: {words[:300]}; {hint}")

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(folder / "model.tflite"), num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._input,), (self._output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def arrange(self, images: Array) -> Array:
        return images.transpose(0, 2, 3, 1).copy() if images.ndim == 4 else images

    def run(self, images: Array) -> Array:
        self._interpreter.set_tensor(self._input["index"], images)
        self._interpreter.invoke()
        result: Array = self._interpreter.get_tensor(self._output["index"])
        return result.transpose(0, 3, 1, 2) if result.ndim == 4 else result

    def check(self) -> str:
        """The file's layers have int8 weights and int8 results; what XNNPACK took over is in the plan."""
        types = {t["index"]: t["dtype"] for t in self._interpreter.get_tensor_details()}
        operations = self._interpreter._get_ops_details()
        layers = [op for op in operations if op["op_name"] in _LAYERS]
        wrong = [op["op_name"] for op in layers if any(types.get(op[k][n]) != np.int8 for k, n in _TENSORS)]
        delegated = any(op["op_name"] == "DELEGATE" for op in operations)
        if wrong or not layers or not delegated:
            found = sorted({op["op_name"] for op in operations})
            raise PeerError(f"{len(wrong)} of {len(layers)} layers are not int8, delegate {delegated}: {found}")
        return f"{len(layers)} int8 layers, XNNPACK delegate"

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return (folder / "model.tflite").stat().st_size


_TENSORS = (("inputs", 0), ("inputs", 1), ("outputs", 0))
