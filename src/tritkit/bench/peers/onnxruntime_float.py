"""ONNX Runtime in float32, all optimisations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tritkit.bench.peers._base import Array, Peer

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload


class OnnxRuntimeFloat32(Peer):
    family: ClassVar[str] = "float"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        work.write_float_onnx(folder / "model.onnx", batch)

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        self._path, self._threads, self._images = folder / "model.onnx", threads, work.images(batch)
        self._session = open_session(self._path, threads)
        self._input = self._session.get_inputs()[0].name

    def run(self, images: Array) -> Array:
        result: Array = self._session.run(None, {self._input: images})[0]
        return result

    def check(self) -> str:
        operations = profiled_operations(self._path, self._threads, self._images)
        return ", ".join(sorted(op for op in operations if "Conv" in op or "Gemm" in op or "MatMul" in op))

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return (folder / "model.onnx").stat().st_size


def open_session(path: Path, threads: int, profile: Path | None = None) -> Any:
    """An inference session on the CPU with `threads` threads, which spin between operations as by default."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def profiled_operations(path: Path, threads: int, images: Array) -> dict[str, int]:
    """How often each operation ran in one run of the model, by the profile of ONNX Runtime."""
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        session = open_session(path, threads, Path(scratch) / "profile")
        session.run(None, {session.get_inputs()[0].name: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    found: dict[str, int] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operation = event["args"]["op_name"]
            found[operation] = found.get(operation, 0) + 1
    return found
