"""OpenVINO in float32 and in bfloat16, latency hint, one stream."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tritkit.bench.peers._base import Array, Peer, PeerError

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload

_LAYERS = ("Convolution", "FullyConnected", "MatMul")


class OpenVinoFloat32(Peer):
    family: ClassVar[str] = "float"
    modules: ClassVar[tuple[str, ...]] = ("openvino",)
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    _precision: ClassVar[str] = "f32"
    _expected: ClassVar[tuple[str, ...]] = ("f32",)

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        import openvino

        plain = folder / "plain.onnx"
        work.write_float_onnx(plain, batch)
        openvino.save_model(openvino.Core().read_model(plain), folder / "model.xml", compress_to_fp16=False)
        plain.unlink()

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self._precision,
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        }
        self._model = openvino.Core().compile_model(folder / "model.xml", "CPU", options)
        self._request = self._model.create_infer_request()

    def run(self, images: Array) -> Array:
        found = self._request.infer({0: images}, share_inputs=True, share_outputs=False)
        return np.asarray(found[0])

    def check(self) -> str:
        """By the compiled model: the precision in which its convolutions and products run."""
        found = layer_precisions(self._model)
        wrong = [precision for precision in found if precision not in self._expected]
        if wrong or not found:
            raise PeerError(f"layers run in {dict(found) or 'no known precision'}, not in {'/'.join(self._expected)}")
        return ", ".join(f"{n} layers {precision}" for precision, n in found.items())

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return sum((folder / name).stat().st_size for name in ("model.xml", "model.bin"))


class OpenVinoBfloat16(OpenVinoFloat32):
    _precision = "bf16"
    _expected = ("bf16",)


def layer_precisions(model: Any) -> Counter[str]:
    """How many layers the compiled model runs in each precision."""
    found: Counter[str] = Counter()
    for node in model.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) in _LAYERS:
            found[info["runtimePrecision"].astype(str)] += 1
    return found
