"""One layer in the bytes of each stage: pruned, shared, Huffman-coded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from tritkit.compress import huffman
from tritkit.compress.bits import pack
from tritkit.compress.gaps import Entries, from_entries, to_entries
from tritkit.compress.sizes import LayerSizes
from tritkit.errors import ModelFileError

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

_HEAD = struct.Struct("<BBI")  # bits of an index, bits of a gap, bytes of the Huffman-coded gaps


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with shared weights.

    index: uint8 of the weight's shape, 0 for a removed weight.  centroids: float32 [2^bits − 1], of the indices from 1.
    gap_bits: bits of a gap between stored weights, 1..8.
    """

    index: UInt8
    centroids: Float32
    gap_bits: int

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return len(self.centroids).bit_length()

    def table(self) -> Float32:
        """The value of each index, float32 [2^bits]."""
        return np.concatenate([np.zeros(1, np.float32), self.centroids])

    def weight(self) -> Float32:
        """The weight, float32."""
        return self.table()[self.index]

    def entries(self) -> Entries:
        """Its stored weights, in C order."""
        return to_entries(self.index.reshape(-1), self.gap_bits)


def encode_layer(layer: Layer) -> bytes:
    """What a file holds of a layer: the centroids, then gaps and indices as Huffman streams with their code lengths."""
    entries = layer.entries()
    gaps = huffman.encode(entries.gaps)
    head = _HEAD.pack(layer.bits, layer.gap_bits, len(gaps))
    return head + _codebook(layer) + gaps + huffman.encode(entries.index)


def pruned_bytes(layer: Layer) -> bytes:
    """A float32 and a gap for each entry: the layer after pruning."""
    entries = layer.entries()
    return layer.table()[entries.index].astype("<f4").tobytes() + pack(entries.gaps, layer.gap_bits)


def shared_bytes(layer: Layer) -> bytes:
    """The centroids, then an index and a gap for each entry: the layer after weight sharing."""
    entries = layer.entries()
    return _codebook(layer) + pack(entries.index, layer.bits) + pack(entries.gaps, layer.gap_bits)


def measure(name: str, layer: Layer) -> LayerSizes:
    """The bytes of every stage."""
    fillers = layer.entries().fillers
    return LayerSizes(
        name=name,
        weights=layer.index.size,
        kept=int(np.count_nonzero(layer.index)),
        fillers=fillers,
        dense=layer.weight().nbytes,
        pruned=len(pruned_bytes(layer)),
        shared=len(shared_bytes(layer)),
        huffman=len(encode_layer(layer)),
    )


def decode_layer(data: bytes, shape: tuple[int, ...]) -> Layer:
    """The layer of `encode_layer`. ModelFileError unless `data` is one of that shape."""
    if len(data) < _HEAD.size:
        raise ModelFileError("the head is cut short")
    bits, gap_bits, gap_bytes = _HEAD.unpack_from(data)
    if not (2 <= bits <= 8 and 1 <= gap_bits <= 8):
        raise ModelFileError(f"indices of {bits} bits and gaps of {gap_bits} bits; allowed are 2..8 and 1..8")
    first, count = _HEAD.size, 2**bits - 1
    second = first + 4 * count
    third = second + gap_bytes
    if third > len(data):
        raise ModelFileError("it ends before its indices")
    centroids = np.frombuffer(data[first:second], "<f4").astype(np.float32)
    entries = Entries(huffman.decode(data[second:third]), huffman.decode(data[third:]))
    _check(entries, centroids, gap_bits)
    return Layer(from_entries(entries, prod(shape)).reshape(shape), centroids, gap_bits)


def _check(entries: Entries, centroids: Float32, gap_bits: int) -> None:
    if not np.isfinite(centroids).all():
        raise ModelFileError("a centroid is NaN or infinite")
    if entries.index.max(initial=0) > len(centroids):
        raise ModelFileError(f"an index is {entries.index.max()}, but there are {len(centroids)} centroids")
    if entries.gaps.max(initial=0) >= 2**gap_bits:
        raise ModelFileError(f"a gap is {entries.gaps.max()}, too wide for {gap_bits} bits")


def _codebook(layer: Layer) -> bytes:
    return layer.centroids.astype("<f4").tobytes()
