"""The engines that are timed, one class each; `PEERS` is the order of the tables.

Listed as places and not as classes, so that a process imports the one engine it runs and no other.
"""

from __future__ import annotations

import importlib

from tritkit.bench.peers._base import Peer
from tritkit.errors import UserError

OURS = "tritkit"
PEERS = {
    OURS: "tritkit.bench.peers.tritkit_:Tritkit",
    "onnxruntime-int8": "tritkit.bench.peers.onnxruntime_int8:OnnxRuntimeInt8",
    "openvino-int8": "tritkit.bench.peers.openvino_int8:OpenVinoInt8",
    "litert-int8": "tritkit.bench.peers.litert_int8:LiteRtInt8",
    "onnxruntime-2bit": "tritkit.bench.peers.onnxruntime_2bit:OnnxRuntime2Bit",
    "onnxruntime-float32": "tritkit.bench.peers.onnxruntime_float:OnnxRuntimeFloat32",
    "openvino-float32": "tritkit.bench.peers.openvino_float:OpenVinoFloat32",
    "openvino-bfloat16": "tritkit.bench.peers.openvino_float:OpenVinoBfloat16",
    "torch-float32": "tritkit.bench.peers.torch_float:TorchFloat32",
    "torch-bfloat16": "tritkit.bench.peers.torch_float:TorchBfloat16",
    "ncnn-float32": "tritkit.bench.peers.ncnn_float:NcnnFloat32",
}


def load_peer(place: str) -> Peer:
    """An instance of the class at "module:Class"."""
    module, _, name = place.partition(":")
    peer = getattr(importlib.import_module(module), name)()
    if not isinstance(peer, Peer):
        raise TypeError(f"{place} is no Peer")
    return peer


def places(names: tuple[str, ...] | None) -> dict[str, str]:
    """Name → place of ours and the named peers; all of them for None. Raises UserError for a name that is none."""
    if names is None:
        return dict(PEERS)
    wrong = [name for name in names if name not in PEERS or name == OURS]
    if wrong or not names:
        allowed = ", ".join(name for name in PEERS if name != OURS)
        raise UserError(f"there is no peer {', '.join(map(repr, wrong)) or 'without a name'}; allowed: {allowed}")
    return {name: place for name, place in PEERS.items() if name == OURS or name in names}
