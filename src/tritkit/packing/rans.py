"""Trits to bytes and back by range asymmetric numeral systems (Duda 2013, https://arxiv.org/abs/1311.2540), in NumPy.

Five trits are one symbol of 243, so that few steps do. How often each trit occurs is kept as three numbers that add up
to 4,096; the frequency of a symbol is their product. The symbols are dealt to lanes, which take their 16-bit words from
one stream: every step handles one symbol of each lane at once.

With a state x in [2^16, 2^32), M = 2^15, and a symbol of frequency f that starts at slot b:

    encode: if x ≥ 2^17·f, write the low 16 bits of x, x → x >> 16;   then x → (x // f)·M + x mod f + b
    decode: s = the symbol of slot x mod M, x → f·(x // M) + x mod M − b;   if x < 2^16, x → x·2^16 + the next word

The encoder goes backwards and begins with x = 2^16 in every lane, which is where the decoder must end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import ModelFileError

__all__ = ["TOTAL", "decode", "encode", "shares"]

UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]

TOTAL = 4096  # what the three numbers add up to
_TRITS, _SYMBOLS = 5, 3**5
_BITS = 15
_SLOTS = 1 << _BITS
_LEAST = 1 << 16  # of a state
_PER_LANE = 1024  # symbols; a lane costs four bytes
_POWERS = 3 ** np.arange(_TRITS)


def shares(trits: UInt8) -> tuple[int, int, int]:
    """How often 0, 1, 2 occur, in parts of `TOTAL`; at least 1 where one occurs at all."""
    counts = np.bincount(trits, minlength=3)
    parts = [max(1, round(int(n) * TOTAL / len(trits))) if n else 0 for n in counts]
    largest = int(np.argmax(parts))
    parts[largest] += TOTAL - sum(parts)
    return parts[0], parts[1], parts[2]


def encode(trits: UInt8, parts: tuple[int, int, int]) -> bytes:
    """The stream of `trits` (uint8, 0..2, at least one): the lanes' last states, then words, little endian."""
    frequency, start = _table(parts)
    symbols = _dealt(trits)
    state: UInt64 = np.full(symbols.shape[1], _LEAST, np.uint64)
    words: list[NDArray[np.uint16]] = []
    for row in symbols[::-1]:
        f = frequency[row]
        full = state >= f << np.uint64(17)
        words.append((state[full] & np.uint64(0xFFFF)).astype(np.uint16))
        state = np.where(full, state >> np.uint64(16), state)
        state = (state // f << np.uint64(_BITS)) + state % f + start[row]
    return state.astype("<u4").tobytes() + np.concatenate(words[::-1]).astype("<u2").tobytes()


def decode(data: bytes, count: int, parts: tuple[int, int, int]) -> UInt8:
    """The `count` trits of a stream. ModelFileError unless `data` is what `encode` writes."""
    steps, lanes = _deal(count)
    if len(data) < 4 * lanes or len(data) % 2:
        raise ModelFileError(f"a stream of {count:,} weights is cut short at {len(data):,} bytes")
    frequency, start = _table(parts)
    symbol_at = np.repeat(np.arange(_SYMBOLS, dtype=np.uint8), frequency.astype(np.int64))
    state: UInt64 = np.frombuffer(data, "<u4", lanes).astype(np.uint64)
    words = np.frombuffer(data, "<u2", offset=4 * lanes).astype(np.uint64)
    symbols = np.empty((steps, lanes), np.uint8)
    at = 0
    for row in symbols:
        slot = state & np.uint64(_SLOTS - 1)
        row[:] = symbol_at[slot]
        state = frequency[row] * (state >> np.uint64(_BITS)) + slot - start[row]
        empty = np.flatnonzero(state < _LEAST)
        if at + len(empty) > len(words):
            raise ModelFileError(f"a stream of {count:,} weights ends before its weights do")
        state[empty] = state[empty] << np.uint64(16) | words[at : at + len(empty)]
        at += len(empty)
    if at != len(words) or (state != _LEAST).any():
        raise ModelFileError(f"a stream of {count:,} weights does not end where it should")
    return _trits(symbols.reshape(-1))[:count]


def _table(parts: tuple[int, int, int]) -> tuple[UInt64, UInt64]:
    """Frequency and first slot of each symbol. Whole numbers all the way: the same on every machine."""
    if sum(parts) != TOTAL or min(parts) < 0:
        raise ModelFileError(f"the shares of a layer's codes are {parts}; they must add up to {TOTAL}")
    digits = np.arange(_SYMBOLS)[:, None] // _POWERS % 3
    products = [int(np.prod([parts[d] for d in row], dtype=object)) for row in digits.tolist()]
    room = _SLOTS - sum(1 for product in products if product)
    frequency = [1 + product * room // TOTAL**_TRITS if product else 0 for product in products]
    frequency[int(np.argmax(frequency))] += _SLOTS - sum(frequency)
    f = np.array(frequency, np.uint64)
    return f, np.cumsum(f) - f


def _deal(count: int) -> tuple[int, int]:
    """Steps and lanes for `count` trits."""
    symbols = -(-count // _TRITS)
    lanes = max(1, symbols // _PER_LANE)
    return -(-symbols // lanes), lanes


def _dealt(trits: UInt8) -> UInt8:
    """Symbols [steps, lanes]; what is missing at the end is filled with the trit that occurs most."""
    steps, lanes = _deal(len(trits))
    filling = steps * lanes * _TRITS - len(trits)
    full = np.concatenate([trits, np.full(filling, np.bincount(trits, minlength=3).argmax(), np.uint8)])
    return (full.reshape(-1, _TRITS) @ _POWERS).astype(np.uint8).reshape(steps, lanes)


def _trits(symbols: UInt8) -> UInt8:
    """Five trits of each symbol."""
    table = (np.arange(_SYMBOLS)[:, None] // _POWERS % 3).astype(np.uint8)
    return table[symbols].reshape(-1)
