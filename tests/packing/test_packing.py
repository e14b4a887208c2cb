"""Packing: the same bytes back, near the entropy; hostile files are refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from math import log2
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritkit.cli.app import run_app
from tritkit.errors import ModelFileError
from tritkit.packing import layer_sizes, pack, rans, unpack
from tritkit.zoo import hub

NETWORK = hub("resnet20-cifar10-ternary").read_bytes()
PACKED = pack(NETWORK)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(1, 60_000), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_trits_come_back(count: int, zeros: float, plus: float, seed: int) -> None:
    chances = [zeros, (1 - zeros) * plus, (1 - zeros) * (1 - plus)]
    trits = np.random.default_rng(seed).choice(3, count, p=chances).astype(np.uint8)
    parts = rans.shares(trits)
    stream = rans.encode(trits, parts)
    assert np.array_equal(rans.decode(stream, count, parts), trits)
    counts = np.bincount(trits, minlength=3) / count
    entropy = -count * sum(p * log2(p) for p in counts if p) / 8
    lanes = max(1, -(-count // 5) // 1024)
    assert len(stream) <= 1.02 * entropy + 8 * lanes + 0.0035 * count + 8


def test_the_packaged_network_comes_back() -> None:
    assert hashlib.sha256(unpack(PACKED)).digest() == hashlib.sha256(NETWORK).digest()
    rows = layer_sizes(NETWORK)
    assert len(rows) == 18
    assert sum(row.weights for row in rows) == 267_264
    for row in rows:
        assert row.entropy <= row.packed <= 1.02 * row.entropy + 60
        assert row.two_bits == row.weights / 4
    total, bound = sum(row.packed for row in rows), sum(row.entropy for row in rows)
    assert total < 1.03 * bound
    assert total < sum(row.five_a_byte for row in rows) < sum(row.two_bits for row in rows)


def test_eleven_million_weights_unpack_in_seconds() -> None:
    trits = np.random.default_rng(0).choice(3, 1_200_000, p=[0.5, 0.25, 0.25]).astype(np.uint8)
    parts = rans.shares(trits)
    stream = rans.encode(trits, parts)
    start = time.process_time()
    rans.decode(stream, len(trits), parts)
    assert time.process_time() - start < 1, "a tenth of ResNet-18, with room for a slow machine"


def test_bytes_that_are_no_network_are_refused() -> None:
    with pytest.raises(ModelFileError):
        pack(b"not a model at all")
    for data in (b"", b"TKPK", NETWORK[:100], PACKED[:60]):
        with pytest.raises(ModelFileError):
            unpack(data)


def test_every_truncation_is_refused() -> None:
    for size in [*range(0, 200, 7), *range(200, len(PACKED), 2999), len(PACKED) - 1]:
        with pytest.raises(ModelFileError):
            unpack(PACKED[:size])
    with pytest.raises(ModelFileError):
        unpack(PACKED + b"\0")


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused(data: st.DataObject) -> None:
    damaged = bytearray(PACKED)
    at = data.draw(st.one_of(st.integers(0, 700), st.integers(0, len(PACKED) - 1)))
    damaged[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ModelFileError):
        unpack(bytes(damaged))


def test_a_few_bytes_cannot_ask_for_gigabytes() -> None:
    for at, width in ((6, 8), (46, 4), (50, 8), (66, 4), (70, 4)):  # size, layers, rest, outputs, weights an output
        damaged = bytearray(PACKED[:400])
        damaged[at : at + width] = b"\xff" * (width - 1) + b"\x3f"
        with pytest.raises(ModelFileError):
            unpack(bytes(damaged))


def test_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run: Callable[..., int] = lambda *words: run_app([str(word) for word in words])  # noqa: E731
    packed, back = tmp_path / "net.tk", tmp_path / "net.onnx"
    assert run("pack", "resnet20-cifar10-ternary", "-o", packed, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["bytes"] == packed.stat().st_size < facts["bytes_before"]
    assert run("unpack", packed, "-o", back) == 0
    assert back.read_bytes() == NETWORK
    packed.write_bytes(PACKED[:-5])
    capfd.readouterr()
    assert run("unpack", packed, "-o", tmp_path / "other.onnx") == 2
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "other.onnx").exists()
    assert run("pack", tmp_path / "none.onnx", "-o", packed) == 2
    assert run("unpack", packed, "-o", tmp_path / "no" / "x.onnx") == 2
