"""PyTorch in eager mode, channels last, batch norms folded into the convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tritkit.bench.peers._base import Array, Peer

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload


class TorchFloat32(Peer):
    family = "float"
    modules = ("torch",)
    packages = ("torch",)
    _dtype: ClassVar[str] = "float32"

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        """The network is built when it is loaded."""

    def load(self, work: Workload, batch: int, folder: Path, threads: int) -> None:
        import torch

        from tritkit.bench.rewriting import without_norms

        torch.set_num_threads(threads)
        self._torch, self._type = torch, getattr(torch, self._dtype)
        net: Any = without_norms(work.network())
        self._net = net.to(memory_format=torch.channels_last).to(self._type)

    def arrange(self, images: Array) -> Any:
        tensor = self._torch.from_numpy(images)
        return tensor.contiguous(memory_format=self._torch.channels_last) if tensor.ndim == 4 else tensor

    def run(self, images: Any) -> Array:
        with self._torch.inference_mode():
            result: Array = self._net(images.to(self._type)).float().numpy()
        return result

    def check(self) -> str:
        types = {p.dtype for p in self._net.parameters()}
        return f"weights {', '.join(str(t).removeprefix('torch.') for t in types)}, eager, channels last"

    def file_bytes(self, work: Workload, folder: Path) -> int:
        return int(sum(p.numel() * p.element_size() for p in self._net.state_dict().values()))


class TorchBfloat16(TorchFloat32):
    _dtype = "bfloat16"
