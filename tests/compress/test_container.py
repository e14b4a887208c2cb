"""The file: the same bits back, sizes that are those of real bytes, and no trust in what it says."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import batch, tiny_net, train
from torch import nn

from tritkit.compress import BySparsity, Compressed, compress, decompress, prune_, share_, shared_layers, sizes, strip_
from tritkit.compress.bits import unpack
from tritkit.compress.encoding import Layer, pruned_bytes, shared_bytes
from tritkit.errors import ModelFileError, TritkitError, UnsupportedError, UserError


def compressed_net() -> nn.Module:
    net = tiny_net()
    prune_(net, BySparsity(0.8))
    share_(net, 3, 2)
    return net


WHOLE = compress(compressed_net()).data
KEYS = len(tiny_net().state_dict())


def test_the_whole_pipeline(tmp_path: Path) -> None:
    net = tiny_net()
    train(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), 60)
    prune_(net, BySparsity(0.6))
    train(net, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), 60)
    share_(net, 4, 3)
    first = train(net, torch.optim.SGD(net.parameters(), lr=0.0), 1)
    last = train(net, torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9), 60)
    assert last < first
    compress(net).save(tmp_path / "net.tkdc")
    state = decompress(Compressed.load(tmp_path / "net.tkdc"))
    x, _ = batch(1)
    expected = net.eval()(x)
    strip_(net)
    assert state.keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(state[key], value)
        assert state[key].dtype == value.dtype
    fresh = tiny_net(5).eval()
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), expected)


def test_sizes_are_those_of_real_bytes() -> None:
    net = compressed_net()
    compressed = compress(net, conv_gap_bits=4, linear_gap_bits=2)
    found = sizes(compressed)
    plain = {key: value.nbytes for key, value in tiny_net().state_dict().items()}
    assert found.dense == sum(plain.values())
    assert found.rest == sum(size for key, size in plain.items() if key not in ("0.weight", "3.weight", "6.weight"))
    assert found.huffman == len(compressed.data)
    assert found.ratio == found.dense / len(compressed.data)
    kinds = [("0", 3, 4, 216), ("3", 3, 4, 288), ("6", 2, 2, 80)]
    for layer, (name, bits, gap_bits, weights) in zip(found.layers, kinds, strict=True):
        index = shared_layers(net)[name].index
        entries = layer.kept + layer.fillers
        assert (layer.name, layer.weights, layer.dense) == (name, weights, 4 * weights)
        assert layer.kept == int((index != 0).sum()) == weights - round(0.8 * weights)
        assert layer.density == layer.kept / weights
        assert layer.pruned == 4 * entries + -(-entries * gap_bits // 8)
        assert layer.shared == 4 * (2**bits - 1) + -(-entries * bits // 8) + -(-entries * gap_bits // 8)
    record = found.facts()
    assert json.loads(json.dumps(record)) == record
    assert list(record)[:4] == ["dense", "pruned", "shared", "huffman"]
    body = found.framing + found.rest + sum(layer["huffman"] for layer in record["layers"].values())
    assert body == len(compressed.data)


def test_each_stage_holds_the_layer() -> None:
    """The bytes that are counted are enough to build the weight again."""
    generator = np.random.default_rng(0)
    index = (generator.integers(1, 8, (6, 5, 3, 3)) * (generator.random((6, 5, 3, 3)) < 0.1)).astype(np.uint8)
    layer = Layer(index, generator.normal(size=7).astype(np.float32), 3)
    entries = layer.entries()
    n = len(entries)
    raw, shared = pruned_bytes(layer), shared_bytes(layer)
    values = np.frombuffer(raw[: 4 * n], "<f4")
    places = np.cumsum(unpack(raw[4 * n :], n, 3).astype(int) + 1) - 1
    dense = np.zeros(index.size, np.float32)
    dense[places] = values
    assert np.array_equal(dense.reshape(index.shape), layer.weight())
    table = np.concatenate([[0], np.frombuffer(shared[:28], "<f4")]).astype(np.float32)
    split = 28 + -(-3 * n // 8)
    assert np.array_equal(table[unpack(shared[28:split], n, 3)], values)
    assert shared[split:] == raw[4 * n :]


def test_the_papers_rate_of_sharing() -> None:
    """r = n·b / (n·log2 k + k·b) for one dense layer; gaps and the entry for zero come on top (section 3)."""
    net = nn.Sequential(nn.Linear(400, 100, bias=False))
    torch.manual_seed(0)
    nn.init.normal_(net[0].weight)
    share_(net, linear_bits=5)
    (layer,) = sizes(compress(net, linear_gap_bits=1)).layers
    n, k = 40_000, 31
    assert layer.shared == n * 5 // 8 + 4 * k + n // 8


def test_what_cannot_be_compressed(tmp_path: Path) -> None:
    net = tiny_net()
    with pytest.raises(UserError, match="call share_ first"):
        compress(net)
    share_(net)
    for name in ("conv_gap_bits", "linear_gap_bits"):
        with pytest.raises(UserError, match=rf"{name} must be an integer in 1\.\.8"):
            compress(net, **{name: 0})
    with pytest.raises(TritkitError, match="cannot write"):
        compress(net).save(tmp_path / "absent" / "net.tkdc")
    assert not list(tmp_path.iterdir())
    net.register_buffer("coarse", torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(UnsupportedError, match=r"'coarse' is torch\.bfloat16"):
        compress(net)
    with torch.no_grad():
        net[0].parametrizations.weight.original[3] = float("nan")
    with pytest.raises(UserError, match="layer '0' has centroids that are NaN"):
        compress(net)


def test_every_dtype() -> None:
    net = compressed_net()
    kinds = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    for kind in kinds:
        net.register_buffer(kind, torch.arange(6).reshape(2, 3).to(getattr(torch, kind)))
    net.register_buffer("empty", torch.zeros(0, 3))
    net.register_buffer("number", torch.tensor(2.5))
    state = decompress(compress(net))
    for key in [*kinds, "empty", "number"]:
        assert torch.equal(state[key], net.get_buffer(key))
        assert state[key].dtype == net.get_buffer(key).dtype


# ---- files that are not ours -----------------------------------------------------------------------------------


def sealed(body: bytes, version: int = 1) -> Compressed:
    return Compressed(struct.pack("<4sIQI", b"TKDC", version, len(body), zlib.crc32(body)) + body)


def record(kind: int, code: int, shape: tuple[int, ...], content: bytes, name: bytes = b"w") -> bytes:
    head = struct.pack("<H", len(name)) + name + struct.pack("<BBB", kind, code, len(shape))
    return head + struct.pack(f"<{len(shape)}I", *shape) + struct.pack("<Q", len(content)) + content


def one(*arguments: object) -> Compressed:
    return sealed(struct.pack("<I", 1) + record(*arguments))


EMPTY = bytes(11)  # a Huffman stream without symbols
SEVEN = np.arange(1, 8, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("compressed", "sentence"),
    [
        (Compressed(b""), "begins with TKDC"),
        (Compressed(b"PK\x03\x04" + bytes(40)), "begins with TKDC"),
        (sealed(bytes(4), version=2), "version 2; this tritkit reads version 1"),
        (Compressed(WHOLE[:-1]), "damaged"),
        (Compressed(WHOLE + b"\0"), "damaged"),
        (Compressed(WHOLE[:99] + bytes([WHOLE[99] ^ 1]) + WHOLE[100:]), "damaged"),
        (sealed(b""), "4 more were announced"),
        (sealed(struct.pack("<I", 2**32 - 1)), "2 more were announced"),
        (sealed(bytes(4) + b"x"), "1 bytes follow"),
        (one(0, 0, (2,), bytes(8), b"\xff"), "not UTF-8"),
        (sealed(struct.pack("<I", 2) + 2 * record(0, 0, (2,), bytes(8))), "'w' is there twice"),
        (one(0, 9, (2,), bytes(8)), "no kind 0 with dtype 9"),
        (one(7, 0, (2,), bytes(8)), "no kind 7"),
        (one(0, 0, (3,), bytes(8)), r"the shape \[3\] does not take 8 bytes"),
        (one(0, 0, (2**32 - 1,) * 8, bytes(8)), "does not take 8 bytes"),
        (one(0, 0, (0,) * 9, b""), "does not take 0 bytes"),
        (one(0, 8, (2,), b"\1\2"), "truth values"),
        (one(1, 0, (2, 2, 2), bytes(8)), "no kind 1 with dtype 0 and 3 dimensions"),
        (one(1, 1, (2, 2), bytes(8)), "no kind 1 with dtype 1"),
        (one(1, 0, (2, 2), b"\3"), "the head is cut short"),
        (one(1, 0, (2, 2), struct.pack("<BBI", 9, 3, 0)), "indices of 9 bits"),
        (one(1, 0, (2, 2), struct.pack("<BBI", 3, 0, 0)), "gaps of 0 bits"),
        (one(1, 0, (2, 2), struct.pack("<BBI", 3, 3, 2**32 - 1) + SEVEN), "ends before its indices"),
        (one(1, 0, (2, 2), struct.pack("<BBI", 3, 3, 11) + SEVEN[:-4] + b"\xff\xff\x7f\x7f" + 2 * EMPTY), None),
        (one(1, 0, (2, 2), struct.pack("<BBI", 3, 3, 11) + SEVEN[:-4] + b"\0\0\xc0\x7f" + 2 * EMPTY), "NaN"),
        (one(1, 0, (65536, 65536), struct.pack("<BBI", 3, 3, 11) + SEVEN + 2 * EMPTY), "at most 536870912"),
    ],
)
def test_hostile_files(compressed: Compressed, sentence: str | None) -> None:
    for read in (decompress, sizes):
        if sentence is None:  # a large but finite centroid
            read(compressed)
            continue
        with pytest.raises(ModelFileError, match=sentence):
            read(compressed)


def test_indices_and_gaps_are_checked() -> None:
    from tritkit.compress.huffman import encode

    for gaps, index, sentence in [
        ([0, 0], [1, 8], "an index is 8, but there are 7"),
        ([0, 8], [1, 1], "a gap is 8, too wide for 3 bits"),
        ([0, 4], [1, 1], "a weight lies at 5, but the layer has 4"),
        ([0, 1], [1, 1, 1], "2 gaps do not fit 3"),
    ]:
        first, second = (encode(np.array(values, np.uint8)) for values in (gaps, index))
        content = struct.pack("<BBI", 3, 3, len(first)) + SEVEN + first + second
        with pytest.raises(ModelFileError, match=sentence):
            decompress(one(1, 0, (2, 2), content))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(0, len(WHOLE) - 21), st.integers(1, 255), st.booleans())
def test_changed_bodies_are_refused_or_read(place: int, flip: int, cut: bool) -> None:
    body = bytearray(WHOLE[20:])
    body[place] ^= flip
    try:
        state = decompress(sealed(bytes(body[:place] if cut else body)))
    except ModelFileError:
        return
    assert not cut
    assert len(state) == KEYS


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        Compressed.load(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot read"):
        Compressed.load(tmp_path)
    (tmp_path / "short").write_bytes(WHOLE[:50])
    with pytest.raises(ModelFileError, match="damaged"):
        Compressed.load(tmp_path / "short")
