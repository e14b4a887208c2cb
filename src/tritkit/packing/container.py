"""The packed file. Little endian:

"TKPK", u16 version, u64 bytes of the network's file, 32 bytes of its SHA-256, u32 layers, u64 bytes of the rest;
for each layer u64 where its codes stand in the network's file, u32 outputs, u32 weights an output, u16 u16 the shares
of codes 0 and +1 in 4,096, u64 bytes of its stream; then the streams; then the rest of the network's file, by zlib.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import log2, prod

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError
from tritkit.inspection import ternary_tensors
from tritkit.packing import rans

__all__ = ["LayerSize", "layer_sizes", "pack", "unpack"]

UInt8 = NDArray[np.uint8]

_MAGIC, _VERSION = b"TKPK", 1
_HEAD, _ENTRY = struct.Struct("<4sHQ32sIQ"), struct.Struct("<QIIHHQ")
_MOST, _MOST_LAYERS = 1 << 31, 20_000
_MOST_RATIO = 1 << 11  # what all-zero codes reach; a few hostile bytes cannot ask for more memory


@dataclass(frozen=True)
class LayerSize:
    """Bytes of a layer's codes: two_bits as in the network's file, five_a_byte five trits a byte, packed here, and the
    entropy of its codes, below which no code of single weights comes.
    """

    name: str
    weights: int
    density: float
    two_bits: int
    five_a_byte: int
    packed: int
    entropy: float


@dataclass(frozen=True)
class _Layer:
    at: int
    rows: int
    row: int
    parts: tuple[int, int, int]
    stream: int

    @property
    def size(self) -> int:
        """Bytes of the codes in the network's file."""
        return self.rows * (-(-self.row // 4))


def pack(data: bytes) -> bytes:
    """The packed form of a network's file (the bytes of an ONNX file of tritkit). ModelFileError if it is damaged."""
    found = [(layer, stream) for _, layer, stream in _layers(data)]
    rest = _without(data, [layer for layer, _ in found])
    packed = zlib.compress(rest, 9)
    head = _HEAD.pack(_MAGIC, _VERSION, len(data), hashlib.sha256(data).digest(), len(found), len(packed))
    entries = b"".join(
        _ENTRY.pack(layer.at, layer.rows, layer.row, *layer.parts[:2], layer.stream) for layer, _ in found
    )
    return b"".join([head, entries, *(stream for _, stream in found), packed])


def unpack(data: bytes) -> bytes:
    """The network's file behind packed bytes. ModelFileError for a damaged file; nothing is returned unless the SHA-256
    fits.
    """
    size, digest, layers, streams, rest_size = _read_head(data)
    stop = len(data) - rest_size
    rest = _inflated(data[stop:], size - sum(layer.size for layer in layers))
    result, read, at = bytearray(size), 0, 0
    for layer in layers:
        more = layer.at - at
        result[at : layer.at] = rest[read : read + more]
        read, at = read + more, layer.at + layer.size
        codes = rans.decode(data[streams : streams + layer.stream], layer.rows * layer.row, layer.parts)
        result[layer.at : at] = _bytes_of(codes.reshape(layer.rows, layer.row)).tobytes()
        streams += layer.stream
    result[at:] = rest[read:]
    if hashlib.sha256(result).digest() != digest:
        raise ModelFileError("the packed file is damaged: what it holds is not what was packed (SHA-256)")
    return bytes(result)


def layer_sizes(data: bytes) -> list[LayerSize]:
    """What each layer's codes take in each form; `data` are the bytes of the network's file."""
    return [_size(name, layer, stream) for name, layer, stream in _layers(data)]


def _size(name: str, layer: _Layer, stream: bytes) -> LayerSize:
    weights = layer.rows * layer.row
    trits = rans.decode(stream, weights, layer.parts)
    chances = [n / weights for n in np.bincount(trits, minlength=3).tolist()]
    bits = -weights * sum(p * log2(p) for p in chances if p)
    packed = len(stream) + _ENTRY.size
    return LayerSize(name, weights, 1 - chances[0], layer.size, -(-weights // 5), packed, bits / 8)


# ---- packing


def _layers(data: bytes) -> Iterator[tuple[str, _Layer, bytes]]:
    """(name, place, stream) of each tensor of codes, in the file's order."""
    end = 0
    for name, shape, at, raw in sorted(ternary_tensors(data), key=lambda found: found[2]):
        rows, row = shape[0], prod(shape[1:])
        codes = _codes_of(raw, rows, row)
        if at < end or codes is None:  # shared by two layers, or not codes as the format has them: left as bytes
            continue
        parts = rans.shares(codes)
        stream = rans.encode(codes, parts)
        end = at + len(raw)
        yield name, _Layer(at, rows, row, parts, len(stream)), stream


def _codes_of(raw: UInt8, rows: int, row: int) -> UInt8 | None:
    """Trits 0 (zero), 1 (plus), 2 (minus); None where the bytes hold anything else."""
    if not rows or not row or raw.size != rows * (-(-row // 4)):
        return None
    pairs = (raw.reshape(rows, -1)[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    pairs = pairs.reshape(rows, -1)
    if (pairs == 2).any() or pairs[:, row:].any():
        return None
    trits: UInt8 = np.minimum(pairs[:, :row], 2).reshape(-1)
    return trits


def _bytes_of(trits: UInt8) -> UInt8:
    """The inverse of `_codes_of`: uint8 [O, ⌈K/4⌉]."""
    codes = np.where(trits == 2, 3, trits).astype(np.uint8)
    quads = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 4))).reshape(len(codes), -1, 4)
    return np.asarray(quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6, np.uint8)


def _without(data: bytes, layers: list[_Layer]) -> bytes:
    parts, at = [], 0
    for layer in layers:
        parts.append(data[at : layer.at])
        at = layer.at + layer.size
    return b"".join([*parts, data[at:]])


# ---- unpacking


def _read_head(data: bytes) -> tuple[int, bytes, list[_Layer], int, int]:
    """Size, SHA-256, layers, where their streams begin, bytes of the rest; all lengths checked."""
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        raise ModelFileError("this is no packed network; tritkit pack makes one")
    _, version, size, digest, count, rest = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise ModelFileError(f"the packed file has version {version}; this tritkit reads version {_VERSION}")
    if size > _MOST or size > _MOST_RATIO * len(data):
        raise ModelFileError(f"the packed file is damaged: {len(data):,} bytes cannot hold {size:,}")
    streams = _HEAD.size + count * _ENTRY.size
    if count > _MOST_LAYERS or streams > len(data):
        raise ModelFileError(f"the packed file is damaged: {count:,} layers announced")
    layers = [_layer(data, _HEAD.size + i * _ENTRY.size) for i in range(count)]
    ends = [0, *(layer.at + layer.size for layer in layers)]
    if any(layer.at < end for layer, end in zip(layers, ends, strict=False)) or max(ends) > size:
        raise ModelFileError("the packed file is damaged: its layers do not lie one after the other")
    if streams + sum(layer.stream for layer in layers) + rest != len(data):
        raise ModelFileError("the packed file is damaged: its lengths do not add up")
    return size, digest, layers, streams, rest


def _layer(data: bytes, at: int) -> _Layer:
    place, rows, row, zero, plus, stream = _ENTRY.unpack_from(data, at)
    if not rows or not row or zero + plus > rans.TOTAL:
        raise ModelFileError("the packed file is damaged: a layer without weights, or with impossible shares")
    return _Layer(place, rows, row, (zero, plus, rans.TOTAL - zero - plus), stream)


def _inflated(data: bytes, size: int) -> bytes:
    """Exactly `size` bytes; never more than that are made."""
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(data, size + 1)
    except zlib.error as error:
        raise ModelFileError(f"the packed file is damaged ({error})") from error
    if len(found) != size or engine.unconsumed_tail or not engine.eof or engine.unused_data:
        raise ModelFileError("the packed file is damaged: the rest of the network is not whole")
    return found
