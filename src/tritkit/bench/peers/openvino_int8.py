"""OpenVINO in int8: NNCF's post-training quantization of the float network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tritkit.bench.peers.openvino_float import OpenVinoFloat32

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload


class OpenVinoInt8(OpenVinoFloat32):
    family = "int8"
    converters = ("nncf",)
    packages = ("openvino", "nncf")
    _expected = ("u8", "i8")

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        import nncf
        import openvino

        from tritkit.bench.rewriting import without_groups

        plain = folder / "plain.onnx"
        work.write_float_onnx(plain, batch, without_groups)  # it runs convolutions in groups in float
        batches = work.calibration(batch)
        model = nncf.quantize(
            openvino.Core().read_model(plain),
            nncf.Dataset(batches),
            subset_size=len(batches),
            fast_bias_correction=True,
        )
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
        plain.unlink()
