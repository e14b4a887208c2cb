"""ONNX Runtime in int8: its own static quantization of the float network, u8 activations, s8 weights a channel, QDQ."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tritkit.bench.peers._base import Array, PeerError
from tritkit.bench.peers.onnxruntime_float import OnnxRuntimeFloat32, profiled_operations

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload

_INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}
_FLOAT = {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "MatMul", "FusedMatMul", "FusedGemm"}


class OnnxRuntimeInt8(OnnxRuntimeFloat32):
    family = "int8"
    converters = ("onnx",)
    packages = ("onnxruntime", "onnx")

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        from onnxruntime.quantization import (  # type: ignore[import-untyped]
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

        from tritkit.bench.rewriting import without_groups

        batches = iter(work.calibration(batch))

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> dict[str, Array] | None:
                images = next(batches, None)
                return None if images is None else {"images": images}

        logging.getLogger().setLevel(logging.ERROR)
        with _scratch(folder) as (plain, shaped):
            work.write_float_onnx(plain, batch, without_groups)  # a quarter faster than convolutions in groups
            quant_pre_process(str(plain), str(shaped), skip_symbolic_shape=True)
            quantize_static(
                str(shaped),
                str(folder / "model.onnx"),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )

    def check(self) -> str:
        operations = profiled_operations(self._path, self._threads, self._images)
        integer = sum(n for op, n in operations.items() if op in _INTEGER)
        floats = [op for op in operations if op in _FLOAT]
        if floats or not integer:
            raise PeerError(f"layers ran in float32 ({', '.join(floats) or 'no integer layer'}): {operations}")
        names = ", ".join(f"{n} {op}" for op, n in sorted(operations.items()) if op in _INTEGER)
        return f"{names} in its profile, no float layer"


class _scratch:
    """Two names of intermediate models that are gone afterwards."""

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / "plain.onnx", folder / "shaped.onnx")

    def __enter__(self) -> Iterator[Path]:
        return iter(self._paths)

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)
