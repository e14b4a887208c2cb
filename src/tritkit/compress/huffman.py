"""Step 3: canonical Huffman coding of bytes, in NumPy.

A stream:  u32 count of symbols, u16 n, u8 longest, n code lengths in ceil(log2(longest + 1)) bits each, u32 bytes of
the payload, payload. Little endian; codes run from the highest bit on; zero bits fill the last byte. Length 0 is a
symbol without a code. Codes are numbered by (length, symbol), so the lengths say all.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from tritkit.compress.bits import pack, packed_size, unpack
from tritkit.errors import ModelFileError

__all__ = ["code_lengths", "codes", "decode", "encode"]

UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]

_HEAD, _TAIL = struct.Struct("<IHB"), struct.Struct("<I")
_LONGEST = 48  # bits; a longer code would need more than 2^32 symbols
_BLOCK = 1 << 15  # payload bytes decoded at once


def code_lengths(counts: NDArray[np.int64]) -> UInt8:
    """The lengths of an optimal prefix code for symbols that occur `counts` [n] times; 0 for those that never do.

    A single symbol gets length 1. Of equal weights the shallower are joined first, so the longest code is as short as
    an optimal code allows.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) < 2:
        lengths[used] = 1
        return lengths
    order = used[np.argsort(counts[used], kind="stable")]
    lengths[order] = _depths(counts[order].tolist())
    return lengths


def codes(lengths: UInt8) -> UInt64:
    """The canonical code of each symbol, as a number of `lengths` bits (0 where the length is 0)."""
    result = np.zeros(len(lengths), np.uint64)
    order = _canonical_order(lengths)
    # each code, filled with zeros to the longest length, starts where the one before it ends
    spans = np.uint64(1) << (np.uint64(_LONGEST) - lengths[order].astype(np.uint64))
    starts = np.cumsum(spans) - spans
    result[order] = starts >> (np.uint64(_LONGEST) - lengths[order].astype(np.uint64))
    return result


def encode(symbols: UInt8) -> bytes:
    """The stream of `symbols`, uint8 [count]."""
    counts = np.bincount(symbols).astype(np.int64)
    lengths = code_lengths(counts)
    payload = _payload(symbols, lengths)
    longest = int(lengths.max(initial=0))
    table = pack(lengths, longest.bit_length()) if longest else b""
    return _HEAD.pack(len(symbols), len(lengths), longest) + table + _TAIL.pack(len(payload)) + payload


def decode(data: bytes) -> UInt8:
    """The symbols of a stream, uint8 [count]. ModelFileError unless `data` is exactly what an encoder writes."""
    if len(data) < _HEAD.size:
        raise ModelFileError(f"a Huffman stream of {len(data)} bytes is cut short")
    count, n, longest = _HEAD.unpack_from(data)
    if n > 256 or longest > _LONGEST:
        raise ModelFileError(f"{n} symbols with codes of up to {longest} bits; a Huffman stream has 256 and {_LONGEST}")
    split = _HEAD.size + packed_size(n, longest.bit_length())
    if len(data) < split + _TAIL.size:
        raise ModelFileError("a Huffman stream ends inside its code lengths")
    lengths = unpack(data[_HEAD.size : split], n, longest.bit_length()) if longest else np.zeros(n, np.uint8)
    (size,) = _TAIL.unpack_from(data, split)
    payload = data[split + _TAIL.size :]
    if size != len(payload):
        raise ModelFileError(f"a Huffman stream says {size} bytes of codes and has {len(payload)}")
    _check_lengths(lengths, longest, count, len(payload))
    return _symbols(payload, lengths, count)


def _depths(weights: list[int]) -> list[int]:
    """The depth of each leaf in Huffman's tree over two or more ascending weights.

    Inner nodes arise in ascending order too, so the smallest is always at the front of one of two queues.
    """
    leaves = len(weights)
    parent = [0] * (2 * leaves - 1)
    leaf, node = 0, leaves
    for new in range(leaves, 2 * leaves - 1):
        total = 0
        for _ in range(2):
            if leaf < leaves and (node == new or weights[leaf] <= weights[node]):
                child, leaf = leaf, leaf + 1
            else:
                child, node = node, node + 1
            parent[child] = new
            total += weights[child]
        weights.append(total)
    depth = [0] * (2 * leaves - 1)
    for child in range(2 * leaves - 3, -1, -1):
        depth[child] = depth[parent[child]] + 1
    return depth[:leaves]


def _canonical_order(lengths: UInt8) -> NDArray[np.int64]:
    """The symbols with a code, by (length, symbol)."""
    used = np.flatnonzero(lengths)
    return used[np.argsort(lengths[used], kind="stable")]


def _payload(symbols: UInt8, lengths: UInt8) -> bytes:
    widths = lengths[symbols].astype(np.int64)
    ends = np.cumsum(widths)
    total = int(ends[-1]) if len(ends) else 0
    left = np.repeat(ends, widths) - 1 - np.arange(total)  # bits of the same code that follow
    bits = (np.repeat(codes(lengths)[symbols], widths) >> left.astype(np.uint64)) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8)).tobytes()


def _check_lengths(lengths: UInt8, longest: int, count: int, size: int) -> None:
    """ModelFileError unless the lengths are those of a whole code (Kraft's sum is 1), or of a single symbol, and
    `count` symbols can lie in `size` bytes.
    """
    used = lengths[lengths > 0].tolist()
    kraft = sum(1 << (_LONGEST - length) for length in used)
    if (count == 0) != (not used) or max(used, default=0) != longest or (len(lengths) and not lengths[-1]):
        raise ModelFileError("the code lengths of a Huffman stream do not fit its head")
    if used and used != [1] and kraft != 1 << _LONGEST:
        raise ModelFileError("the code lengths of a Huffman stream make no prefix code")
    if count * min(used, default=0) > 8 * size or (size and not count):
        raise ModelFileError(f"{count} symbols cannot lie in {size} bytes of a Huffman stream")


def _symbols(payload: bytes, lengths: UInt8, count: int) -> UInt8:
    """Look up the code at every bit of a block, then follow the codes from one to the next."""
    order = _canonical_order(lengths)
    shifts = np.uint64(_LONGEST) - lengths[order].astype(np.uint64)
    starts = codes(lengths)[order] << shifts
    padded = np.frombuffer(payload + bytes(8), np.uint8)
    found, position, left = [np.zeros(0, np.uint8)], 0, count
    for first in range(0, len(payload), _BLOCK):
        rank = np.searchsorted(starts, _windows(padded[first : first + _BLOCK + 8]), side="right") - 1
        steps = lengths[order][rank].tolist()
        places, at = [], position - 8 * first
        while left and at < len(steps):
            places.append(at)
            at += steps[at]
            left -= 1
        found.append(order[rank[places]].astype(np.uint8))
        position = at + 8 * first
    _check_end(payload, position, left, len(order))
    return np.concatenate(found)


def _windows(block: UInt8) -> UInt64:
    """The 48 bits from each bit of a block on, all but its last 8 bytes."""
    words = np.lib.stride_tricks.sliding_window_view(block, 8)[:-1]
    words = np.ascontiguousarray(words).view(">u8").astype(np.uint64)
    return ((words << np.arange(8, dtype=np.uint64)) >> np.uint64(64 - _LONGEST)).reshape(-1)


def _check_end(payload: bytes, position: int, left: int, coded: int) -> None:
    if left or -(-position // 8) != len(payload):
        raise ModelFileError("the codes of a Huffman stream do not end with its bytes")
    filling = payload[-1] & ((1 << (8 * len(payload) - position)) - 1) if payload else 0
    if filling or (coded == 1 and any(payload)):
        raise ModelFileError("a Huffman stream has bits that are no code")
