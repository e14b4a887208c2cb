"""ONNX Runtime's MatMulNBits with 2-bit weights: linear layers only, one scale a block of 128, int8 activations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritkit.bench.peers._base import PeerError
from tritkit.bench.peers.onnxruntime_float import OnnxRuntimeFloat32, profiled_operations

if TYPE_CHECKING:
    from tritkit.bench.workload import Workload

_BLOCK = 128  # the fastest block size of this operation
_INT8_ACTIVATIONS = 4  # accuracy_level


class OnnxRuntime2Bit(OnnxRuntimeFloat32):
    family = "int8"
    converters = ("onnx",)
    packages = ("onnxruntime", "onnx")

    def unsupported(self, facts: dict[str, Any], batch: int) -> str | None:
        if facts["kind"] != "linear":
            return "the operation MatMulNBits is for linear layers only"
        if not facts["symmetric"]:
            return "the operation MatMulNBits has one scale for plus and minus"
        return None

    def prepare(self, work: Workload, batch: int, folder: Path) -> None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        state = work.network().state_dict()
        weight, bias = (state[f"linear.{name}"].numpy() for name in ("weight", "bias"))
        outputs, inputs = weight.shape
        arrays = {"packed": _packed(weight), "scales": _scales(weight), "bias": bias}
        node = helper.make_node(
            *("MatMulNBits", ["images", "packed", "scales", "", "", "bias"], ["out"]),
            **{"domain": "com.microsoft", "K": inputs, "N": outputs, "bits": 2, "block_size": _BLOCK},
            accuracy_level=_INT8_ACTIVATIONS,
        )
        graph = helper.make_graph(
            [node],
            "linear",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, inputs])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, outputs])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), folder / "model.onnx")

    def check(self) -> str:
        operations = profiled_operations(self._path, self._threads, self._images)
        if set(operations) != {"MatMulNBits"}:
            raise PeerError(f"other operations than MatMulNBits ran: {operations}")
        return "MatMulNBits, 2 bits, int8 activations"


def _packed(weight: Any) -> Any:
    """uint8 [O, blocks, block / 4]: codes 1, 2, 3 for −, 0, +, four a byte, the first in the lowest bits."""
    outputs, inputs = weight.shape
    blocks = -(-inputs // _BLOCK)
    codes = np.full((outputs, blocks * _BLOCK), 2, np.uint8)
    codes[:, :inputs] += np.sign(weight).astype(np.int8).view(np.uint8)
    quads = codes.reshape(outputs, blocks, _BLOCK // 4, 4)
    return (quads << np.array([0, 2, 4, 6], np.uint8)).sum(axis=-1, dtype=np.uint8)


def _scales(weight: Any) -> Any:
    """float32 [O, blocks]"""
    blocks = -(-weight.shape[1] // _BLOCK)
    return np.repeat(np.abs(weight).max(axis=1, keepdims=True), blocks, axis=1).astype(np.float32)
