"""Huffman coding: optimal, canonical, exact, and never trusting a stream."""

from __future__ import annotations

import heapq
import struct
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tritkit.compress.huffman import code_lengths, codes, decode, encode
from tritkit.errors import ModelFileError

quick = settings(derandomize=True, deadline=None, max_examples=150)


def optimal_cost(counts: list[int]) -> int:
    """The bits an optimal prefix code takes: the sum of all weights that a heap joins."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost


def slow_decode(bits: str, lengths: list[int], count: int) -> list[int]:
    """Symbols of a canonical code, told apart bit by bit."""
    table, code, previous = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - previous
        table[format(code, f"0{length}b")] = symbol
        code, previous = code + 1, length
    found, at = [], 0
    for _ in range(count):
        end = at + 1
        while bits[at:end] not in table:
            end += 1
        found.append(table[bits[at:end]])
        at = end
    return found


def fibonacci(n: int) -> list[int]:
    numbers = [1, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers


@quick
@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**6)), min_size=2, max_size=256))
@example([1] * 256)
@example([0, 0, 1, 1])
@example(fibonacci(40))
def test_lengths_are_optimal(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts, np.int64)).tolist()
    used = [(length, count) for length, count in zip(lengths, counts, strict=True) if count]
    assert all((length > 0) == (count > 0) for length, count in zip(lengths, counts, strict=True))
    if len(used) > 1:
        assert sum(length * count for length, count in used) == optimal_cost(counts)
        assert sum(Fraction(1, 2**length) for length, _ in used) == 1  # Kraft


def test_the_longest_code_is_as_short_as_an_optimal_code_allows() -> None:
    assert code_lengths(np.array([1, 1, 2, 2])).tolist() == [2, 2, 2, 2]  # 3, 3, 2, 1 takes the same 12 bits


def test_the_entropy_bound() -> None:
    symbols = np.minimum(np.random.default_rng(0).geometric(0.3, 20_000), 255).astype(np.uint8)
    share = np.bincount(symbols) / len(symbols)
    share = share[share > 0]
    entropy = float(-(share * np.log2(share)).sum())
    average = 8 * len(encode(symbols)) / len(symbols)
    assert entropy <= average < entropy + 0.1


def test_canonical_codes_by_hand() -> None:
    lengths = np.array([2, 0, 1, 3, 3], np.uint8)
    assert codes(lengths).tolist() == [0b10, 0, 0b0, 0b110, 0b111]
    stream = encode(np.array([0, 0, 1, 1, 1, 1, 2], np.uint8))  # lengths 2, 1, 2
    assert stream == struct.pack("<IHB", 7, 3, 2) + bytes([0b10_01_10_00]) + struct.pack("<I", 2) + bytes(
        [0b10_10_0_0_0_0, 0b11_000000]
    )


@quick
@given(st.binary(max_size=400))
@example(b"")
@example(b"\0")
@example(b"\xff" * 1000)
@example(bytes(range(256)))
@example(bytes(range(256)) * 3 + b"\0" * 5000)
def test_round_trip(data: bytes) -> None:
    symbols = np.frombuffer(data, np.uint8)
    stream = encode(symbols)
    assert decode(stream).tobytes() == data
    assert decode(stream).dtype == np.uint8
    assert encode(decode(stream)) == stream


def test_long_codes_and_many_blocks() -> None:
    """Codes of up to 23 bits, and a payload of several decoder blocks; the slow decoder agrees."""
    counts = fibonacci(24)
    symbols = np.repeat(np.arange(24), counts).astype(np.uint8)
    np.random.default_rng(0).shuffle(symbols)
    lengths = code_lengths(np.bincount(symbols))
    assert lengths.max() == 23
    stream = encode(symbols)
    assert np.array_equal(decode(stream), symbols)
    noise = np.random.default_rng(1).integers(0, 256, 100_000).astype(np.uint8)
    assert np.array_equal(decode(encode(noise)), noise)
    table = -(-len(lengths) * 5 // 8)
    payload = stream[7 + table + 4 :]
    bits = "".join(format(byte, "08b") for byte in payload[:400])
    assert slow_decode(bits, lengths.tolist(), 100) == symbols[:100].tolist()


def test_it_is_fast_enough() -> None:
    symbols = np.minimum(np.random.default_rng(0).geometric(0.2, 270_000), 255).astype(np.uint8)
    began = time.process_time()
    assert np.array_equal(decode(encode(symbols)), symbols)
    assert time.process_time() - began < 2  # 0.2 s where nothing else runs


# ---- streams that are not ours -------------------------------------------------------------------------------


def stream(count: int, n: int, longest: int, table: bytes, payload: bytes, size: int | None = None) -> bytes:
    said = len(payload) if size is None else size
    return struct.pack("<IHB", count, n, longest) + table + struct.pack("<I", said) + payload


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "of 0 bytes is cut short"),
        (stream(1, 257, 1, bytes(33), b"\0"), "257 symbols"),
        (stream(1, 2, 49, b"\0\0", b"\0"), "codes of up to 49 bits"),
        (struct.pack("<IHB", 4, 200, 3) + b"\0\0", "ends inside its code lengths"),
        (stream(4, 2, 1, b"\xc0", b"\x50", 9), "says 9 bytes of codes and has 1"),
        (stream(4, 2, 1, b"\xc1", b"\x50"), "bits after the last number"),
        (stream(4, 3, 1, b"\xe0", b"\x50"), "make no prefix code"),  # three codes of one bit
        (stream(4, 2, 2, bytes([0b0110_0000]), b"\x50"), "make no prefix code"),  # 1/2 + 1/4
        (stream(4, 1, 2, bytes([0b1000_0000]), b"\x50"), "make no prefix code"),  # one symbol, two bits
        (stream(4, 2, 3, bytes([0b01_01_0000]), b"\x50"), "do not fit its head"),  # no code is of three bits
        (stream(4, 2, 0, b"", b"\x50"), "do not fit its head"),
        (stream(0, 2, 1, b"\xc0", b""), "do not fit its head"),
        (stream(4, 3, 1, b"\xc0", b"\x50"), "do not fit its head"),  # a length too many
        (stream(2**32 - 1, 2, 1, b"\xc0", b"\x50"), "4294967295 symbols cannot lie in 1 bytes"),
        (stream(8, 3, 2, bytes([0b0110_1000]), b"\xff"), "do not end with its bytes"),  # four codes of two bits
        (stream(4, 2, 1, b"\xc0", b"\x50\0"), "do not end with its bytes"),
        (stream(4, 2, 1, b"\xc0", b"\x51"), "bits that are no code"),
        (stream(4, 1, 1, b"\x80", b"\x50"), "bits that are no code"),
        (stream(0, 0, 0, b"", b"\0"), "0 symbols cannot lie in 1 bytes"),
    ],
)
def test_hostile_streams(data: bytes, sentence: str) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        decode(data)


@quick
@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_changed_stream_is_refused_or_another_stream(symbols: bytes, data: st.DataObject) -> None:
    whole = bytearray(encode(np.frombuffer(symbols, np.uint8)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(whole), bytes(whole[:place])):
        try:
            found = decode(broken)
        except ModelFileError:
            continue
        assert len(found) == struct.unpack_from("<I", broken)[0]
