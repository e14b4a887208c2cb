"""A network's file for download: codes near their entropy, and the same file back, byte for byte.

    packed = pack(Path("net.onnx").read_bytes())
    assert unpack(packed) == Path("net.onnx").read_bytes()

Needs NumPy alone. What it reads may come from a stranger: every length is checked, and a SHA-256 at the end.
"""

from __future__ import annotations

from tritkit.packing.container import LayerSize, layer_sizes, pack, unpack

__all__ = ["LayerSize", "layer_sizes", "pack", "unpack"]
