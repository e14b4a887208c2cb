"""Positions as gaps with fillers, and numbers of a few bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritkit.compress.bits import pack, packed_size, unpack
from tritkit.compress.gaps import Entries, from_entries, to_entries
from tritkit.errors import ModelFileError

quick = settings(derandomize=True, deadline=None, max_examples=150)


def test_the_papers_figure() -> None:
    """Figure 2: weights at 1, 4 and 15 counted from 1, three bits: steps 1, 3, a filler of 8, and 3."""
    flat = np.zeros(16, np.uint8)
    flat[[0, 3, 14]] = [5, 6, 7]
    entries = to_entries(flat, 3)
    assert (entries.gaps + 1).tolist() == [1, 3, 8, 3]
    assert entries.index.tolist() == [5, 6, 0, 7]
    assert (len(entries), entries.fillers) == (4, 1)
    assert from_entries(entries, 16).tolist() == flat.tolist()


@pytest.mark.parametrize(("zeros", "fillers"), [(7, 0), (8, 1), (15, 1), (16, 2), (24, 3)])
def test_where_fillers_begin(zeros: int, fillers: int) -> None:
    assert to_entries(np.array([0] * zeros + [1], np.uint8), 3).fillers == fillers


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@quick
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 255)), max_size=30), st.integers(0, 600))
def test_round_trip(bits: int, weights: list[tuple[int, int]], tail: int) -> None:
    flat = np.array([v for zeros, value in weights for v in [0] * zeros + [value]] + [0] * tail, np.uint8)
    entries = to_entries(flat, bits)
    assert np.array_equal(from_entries(entries, len(flat)), flat)
    assert entries.gaps.max(initial=0) < 2**bits
    assert entries.fillers == sum(zeros // 2**bits for zeros, _ in weights)
    assert len(entries) - entries.fillers == len(weights)


def test_all_zero_takes_nothing() -> None:
    assert len(to_entries(np.zeros(1000, np.uint8), 4)) == 0


def test_entries_behind_the_end_are_refused() -> None:
    gaps, index = np.array([3, 4], np.uint8), np.array([1, 2], np.uint8)
    assert from_entries(Entries(gaps, index), 9).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 2]
    with pytest.raises(ModelFileError, match="a weight lies at 8, but the layer has 8"):
        from_entries(Entries(gaps, index), 8)
    with pytest.raises(ModelFileError, match="2 gaps do not fit 1 indices"):
        from_entries(Entries(gaps, index[:1]), 9)


def test_bits_by_hand() -> None:
    assert pack(np.array([5, 1, 7], np.uint8), 3) == bytes([0b101_001_11, 0b1_0000000])
    assert unpack(bytes([0b101_001_11, 0b1_0000000]), 3, 3).tolist() == [5, 1, 7]


@pytest.mark.parametrize("width", range(1, 9))
@quick
@given(st.binary(max_size=50))
def test_bits_round_trip(width: int, data: bytes) -> None:
    values = np.frombuffer(data, np.uint8) & np.uint8(2**width - 1)
    packed = pack(values, width)
    assert len(packed) == packed_size(len(values), width)
    assert np.array_equal(unpack(packed, len(values), width), values)


def test_wrong_bits_are_refused() -> None:
    with pytest.raises(ModelFileError, match="3 numbers of 3 bits do not take 1 bytes"):
        unpack(b"\0", 3, 3)
    with pytest.raises(ModelFileError, match="not zero"):
        unpack(b"\x01", 2, 3)
