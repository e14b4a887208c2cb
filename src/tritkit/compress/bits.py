"""Numbers of a few bits each, one after the other, the highest bit first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError

UInt8 = NDArray[np.uint8]


def pack(values: UInt8, width: int) -> bytes:
    """`values`, each below 2^width, in `width` (1..8) bits each; zero bits fill the last byte."""
    return np.packbits(np.unpackbits(values[:, None], axis=1)[:, 8 - width :]).tobytes()


def packed_size(count: int, width: int) -> int:
    """The bytes that `pack` makes of `count` values."""
    return -(-count * width // 8)


def unpack(data: bytes, count: int, width: int) -> UInt8:
    """The `count` values of `pack`. ModelFileError if the length is wrong or the filling is not zero."""
    if len(data) != packed_size(count, width):
        raise ModelFileError(f"{count} numbers of {width} bits do not take {len(data)} bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[count * width :].any():
        raise ModelFileError("bits after the last number are not zero")
    padded = np.zeros((count, 8), np.uint8)
    padded[:, 8 - width :] = bits[: count * width].reshape(count, width)
    return np.packbits(padded, axis=1).reshape(count)
