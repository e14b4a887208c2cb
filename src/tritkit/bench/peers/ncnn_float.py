"""ncnn in float32, converted by pnnx. ncnn has no batches: the images of a batch run one after another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritkit.bench.peers._base import Array, Peer, PeerError

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload


class NcnnFloat32(Peer):
    family = "float"
    modules = ("ncnn",)
    converters = ("pnnx", "torch")
    packages = ("ncnn", "pnnx")

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        import pnnx
        import torch

        from tritkit.bench.rewriting import without_strided_slices

        here = Path.cwd()
        os.chdir(folder)  # pnnx writes some files beside the caller
        try:
            pnnx.export(
                without_strided_slices(work.network()), "model.pt", torch.from_numpy(work.images(1)), fp16=False
            )
        finally:
            os.chdir(here)
        for path in folder.iterdir():
            if path.name not in ("model.ncnn.param", "model.ncnn.bin"):
                path.unlink()

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        import ncnn

        self._ncnn, self._net = ncnn, ncnn.Net()
        options = self._net.opt
        options.num_threads, options.use_vulkan_compute = threads, False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if self._net.load_param(str(folder / "model.ncnn.param")) or self._net.load_model(
            str(folder / "model.ncnn.bin")
        ):
            raise PeerError("ncnn does not load the converted network: it has an operation that ncnn lacks")

    def run(self, images: Array) -> Array:
        return np.stack([self._one(image) for image in images])

    def _one(self, image: Array) -> Any:
        with self._net.create_extractor() as extractor:
            extractor.input("in0", self._ncnn.Mat(image))
            _, result = extractor.extract("out0")
            return np.array(result)

    def check(self) -> str:
        return f"fp16 and bf16 off, version {self._ncnn.__version__}"

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return sum((folder / name).stat().st_size for name in ("model.ncnn.param", "model.ncnn.bin"))
