"""Every operation, kernel, instruction set and thread count gives the bits of the NumPy oracle."""

from __future__ import annotations

from collections.abc import Callable

import engine_oracle
import numpy as np
import pytest
from engine_networks import Builder, group_network, small_network

from tritkit.runtime import Session, kernels

ISAS = ("scalar", "avx2", "avxvnni", "avx512vnni", "amx")
ENGINES = ("reference", "dense", "unpacked", "gather", "winograd", "baked")


def images(shape: tuple[int, ...], batch: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (batch, *shape)).astype(np.float32)


def check(b: Builder, shape: tuple[int, ...], batch: int = 3, **options: object) -> None:
    x = images(shape, batch)
    want = engine_oracle.run(b.proto(), x)[0]
    with Session(b.model(), **options) as session:  # type: ignore[arg-type]
        got = session.run(x)
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, want)
    assert want.std() > 0, "a constant result tests nothing"


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITKIT_ISA", raising=False)


BAKED_AVX2 = {"engine": "baked", "isa": "avx2"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options", [*({"engine": e} for e in ENGINES), *({"isa": isa} for isa in ISAS), BAKED_AVX2], ids=str
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_small_network(seed: int, options: dict[str, str], threads: int) -> None:
    check(small_network(seed), (3, 9, 8), threads=threads, **options)


@pytest.mark.parametrize("options", [*({"engine": e} for e in ENGINES), *({"isa": isa} for isa in ISAS)], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_groups_of_weights(options: dict[str, str], threads: int) -> None:
    for seed in range(4):
        check(group_network(seed), (3, 9, 8), threads=threads, **options)


def test_groups_show_their_operation_and_weights() -> None:
    with Session(group_network().model(), threads=1) as session:
        rows = [row for row in session.summary() if row.macs]
    assert [row.op for row in rows] == [
        "TernaryGroupQConv", "TernaryGroupQConv", "TernaryGroupQConv + QAdd", "TernaryGroupQConv", "TernaryGroupQConv",
        "TernaryGroupQGemm", "TernaryGroupGemm",
    ]  # fmt: skip
    assert all(0.3 < row.density < 0.8 for row in rows)


def test_every_compiled_kernel_is_reached() -> None:
    reached = set()
    for isa in ISAS:
        with Session(small_network().model(), isa=isa, engine="dense") as session:
            reached |= {row.kernel for row in session.summary() if row.macs}
    for engine, isa in (("gather", None), ("winograd", None), ("baked", None), ("baked", "avx2")):
        with Session(small_network(1).model(), engine=engine, isa=isa) as session:
            reached |= {row.kernel for row in session.summary() if row.macs}
    names = {k.name for k in kernels()}
    assert reached <= names
    assert {k.isa for k in kernels()} == {k.isa for k in kernels() if k.name in reached}
    assert {"avx512vbmi_gather", "avx512vnni_winograd", "avx512_baked", "avx2_baked"} & names <= reached


@pytest.mark.skipif(not {"avx512vnni", "avxvnni"} & {k.isa for k in kernels()}, reason="this CPU has no dot product")
def test_unpacked_layers_run_unpacked() -> None:
    """All ternary layers but those for which another instruction set has the preferred kernel."""
    isa = next(name for name in ("avx512vnni", "avxvnni") if name in {k.isa for k in kernels()})
    with Session(small_network().model(), engine="unpacked", isa=isa) as session:
        rows = [row for row in session.summary() if row.op.startswith("TernaryQ") and row.kernel.startswith(isa)]
    assert rows
    assert all(row.kernel.endswith("_unpacked") for row in rows)
    with Session(small_network().model(), engine="dense", isa=isa) as session:
        dense = {row.name: row.packed_bytes for row in session.summary()}
    assert any(row.packed_bytes > dense[row.name] for row in rows)


def test_batches_may_change() -> None:
    b = small_network(7)
    with Session(b.model(), threads=2) as session:
        for batch in (1, 5, 2, 33, 1):
            x = images((3, 9, 8), batch, seed=batch)
            assert np.array_equal(session.run(x), engine_oracle.run(b.proto(), x)[0])
            assert session.arena_bytes(batch) == batch * session.arena_bytes(1)


def test_typed_tensor_fields_mean_the_same_as_raw_bytes() -> None:
    b, x = small_network(3), images((3, 9, 8))
    with Session(b.model(raw=True)) as raw, Session(b.model(raw=False)) as typed:
        assert np.array_equal(raw.run(x), typed.run(x))


def finish(b: Builder, x: str, features: int) -> Builder:
    """Shows the codes themselves and a Gemm over them."""
    b.output(b.dequantize(x), 4)
    b.output(b.linear(b.moved("Flatten", [x], [], axis=1), 3, features), 2)
    return b


def conv_case(**options: object) -> Callable[[Builder], str]:
    def build(b: Builder) -> str:
        return b.conv(b.quantize(), 12, 6, **options)  # type: ignore[arg-type]

    return build


CASES: dict[str, tuple[Callable[[Builder], str], int]] = {
    "conv 1x1": (conv_case(kernel=(1, 1), pads=(0, 0, 0, 0)), 12 * 10 * 7),
    "conv 3x2 odd pads": (conv_case(kernel=(3, 2), pads=(2, 0, 1, 3)), 12 * 11 * 9),
    "conv stride 3, 2": (conv_case(strides=(3, 2)), 12 * 4 * 4),
    "conv dilated": (conv_case(dilations=(2, 3), pads=(2, 3, 2, 3)), 12 * 10 * 7),
    "conv groups": (conv_case(group=3), 12 * 10 * 7),
    "conv depthwise": (conv_case(group=6), 12 * 10 * 7),
    "conv int8 groups": (conv_case(ternary=False, group=2), 12 * 10 * 7),
    "conv all zero": (lambda b: b.add(b.conv(b.quantize(), 6, 6, density=0.0), b.conv(b.quantize(), 6, 6)), 6 * 10 * 7),
    "conv dense": (conv_case(density=1.0), 12 * 10 * 7),
    "conv large pads": (conv_case(pads=(5, 4, 6, 7)), 12 * 19 * 16),
    "add of one tensor": (lambda b: (lambda x: b.add(x, x))(b.quantize()), 6 * 10 * 7),
    "add of two convolutions": (lambda b: b.add(b.conv(q := b.quantize(), 6, 6), b.conv(q, 6, 6)), 6 * 10 * 7),
    "add reuses a convolution": (
        lambda b: b.add(b.add(y := b.conv(b.quantize(), 6, 6), b.conv(y, 6, 6)), y),
        6 * 10 * 7,
    ),
    "rescale": (lambda b: b.rescale(b.quantize()), 6 * 10 * 7),
    "average pool": (
        lambda b: b.average_pool(b.quantize(), [(0, 4), (3, 10), (9, 10)], [(0, 7), (2, 4)], 10, 7),
        6 * 3 * 2,
    ),
    "global pool": (lambda b: b.average_pool(b.quantize(), [(0, 10)], [(0, 7)], 10, 7), 6),
    "max pool": (
        lambda b: b.moved(
            "MaxPool", [b.quantize()], [], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 2, 1], dilations=[2, 1]
        ),
        6 * 5 * 4,
    ),
    "clip": (lambda b: b.moved("Clip", [b.quantize()], [(100, np.uint8), (150, np.uint8)]), 6 * 10 * 7),
    "pad": (
        lambda b: b.moved("Pad", [b.quantize()], [([0, 2, 1, 3, 0, 1, 0, 2], np.int64), (120, np.uint8)]),
        9 * 11 * 12,
    ),
    "pad then conv": (
        lambda b: b.conv(b.moved("Pad", [b.quantize()], [([0, 1, 1, 2, 0, 1, 0, 0], np.int64), (120, np.uint8)]), 5, 8),
        5 * 11 * 9,
    ),
    "slice": (
        lambda b: b.moved(
            "Slice",
            [b.quantize()],
            [([1, 0, -5], np.int64), ([6, 100, -1], np.int64), ([1, 2, 3], np.int64), ([2, 3, 1], np.int64)],
        ),
        3 * 4 * 4,
    ),
    "slice then pad": (
        lambda b: b.moved(
            "Pad",
            [
                b.moved(
                    "Slice",
                    [b.quantize()],
                    [([2, 1, 1], np.int64), ([6, 9, 7], np.int64), ([1, 2, 3], np.int64), ([1, 3, 2], np.int64)],
                )
            ],
            [([0, 2, 1, 0, 0, 1, 0, 2], np.int64), (120, np.uint8)],
        ),
        7 * 4 * 5,
    ),
    "reshape": (lambda b: b.moved("Reshape", [b.quantize()], [([0, 4, -1, 5], np.int64)]), 420),
    "concat channels": (
        lambda b: b.moved(
            "Concat", [q := b.quantize(), b.moved("Clip", [q], [(90, np.uint8), (140, np.uint8)])], [], axis=1
        ),
        12 * 10 * 7,
    ),
    "concat rows": (lambda b: b.moved("Concat", [q := b.quantize(), q, q], [], axis=2), 6 * 30 * 7),
    "concat columns": (lambda b: b.conv(b.moved("Concat", [q := b.quantize(), q], [], axis=-1), 6, 6), 6 * 10 * 14),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("options", "batch"),
    [({"engine": "reference", "threads": 1}, 3), ({"threads": 3}, 3), ({"threads": 3}, 100)],  # the last is shared
    ids=str,
)
def test_operation(name: str, options: dict[str, object], batch: int) -> None:
    build, features = CASES[name]
    b = Builder(11, 6, 10, 7)
    finish(b, build(b), features)
    x = images((6, 10, 7), batch)
    want = engine_oracle.run(b.proto(), x)
    with Session(b.model(), **options) as session:  # type: ignore[arg-type]
        got = session.run(x)
    assert isinstance(got, dict)
    for output, expected in zip(got.values(), want, strict=True):
        assert np.array_equal(output, expected)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_share_one_image(threads: int) -> None:
    """Its rows, the halo around them, and what moves rows about; in memory that the image before has written."""
    b = Builder(2, 6, 41, 36)
    x = b.conv(b.quantize(), 16, 6)
    x = b.conv(b.add(b.conv(x, 16, 16), x), 16, 16, zero=120)
    x = b.moved("Pad", [x], [([0, 3, 5, 1, 0, 2, 2, 0], np.int64), (120, np.uint8)])
    x = b.conv(x, 20, 21, kernel=(5, 3), strides=(2, 1), pads=(2, 1, 2, 1))
    x = b.moved("Concat", [x, b.moved("MaxPool", [x], [], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], [], axis=1)
    x = b.moved("Slice", [x], [([1, 0], np.int64), ([40, 100], np.int64), ([1, 2], np.int64), ([1, 2], np.int64)])
    b.output(b.dequantize(b.conv(x, 7, 39)), 4)
    with Session(b.model(), threads=threads) as session:
        for seed in (1, 2):
            pixels = images((6, 41, 36), batch=1, seed=seed)
            assert np.array_equal(session.run(pixels), engine_oracle.run(b.proto(), pixels)[0])


@pytest.mark.parametrize("ternary", [True, False])
def test_a_chain_of_linear_layers(ternary: bool) -> None:
    b = Builder(5, 77)
    x = b.linear(b.quantize(), 130, 77, ternary=ternary, to_float=False)
    x = b.linear(x, 65, 130, ternary=ternary, to_float=False)
    b.output(b.linear(x, 9, 65, ternary=ternary), 2)
    for threads in (1, 3):
        check(b, (77,), batch=7, threads=threads)


@pytest.mark.parametrize("x_zero", [0, 255])
@pytest.mark.parametrize("sign", [-1, 1])
def test_largest_sums_do_not_wrap(x_zero: int, sign: int) -> None:
    """K = 65,792 weights of 64 with inputs at the ends and bias 2^30: an int32 just holds it."""
    k = 65792
    b = Builder(1, k)
    q = b.quantize(zero=x_zero)
    w, bias = np.full((2, k), 64 * sign, np.int8), np.array([2**30, -(2**30)], np.int32)
    args = [*b.q(q), b.constant(w, np.int8), b.constant([1e-5, 1e-5], np.float32), b.constant(bias, np.int32)]
    b.output(b.node("Int8Gemm", args, None, "tritkit"), 2)
    x = np.stack([np.full(k, 1e9, np.float32), np.full(k, -1e9, np.float32)])
    want = engine_oracle.run(b.proto(), x)[0]
    for options in ({"engine": "reference"}, {"isa": "avx2"}, {}):
        with Session(b.model(), **options) as session:  # type: ignore[arg-type]
            assert np.array_equal(session.run(x), want)


def test_infinite_pixels_and_huge_multipliers_saturate() -> None:
    b = Builder(2, 4, 5, 5)
    q = b.quantize()
    shape, quant = (70, 4, 1, 1), b.fresh(10, 1e-12)
    w, book = b._weights(shape, True, 1.0)
    args = [*b.q(q), *w, *book, b.constant(np.full(70, 1e3), np.float32), b.constant(np.zeros(70), np.int32), *quant]
    y = b.node("TernaryQConv", args, quant, "tritkit", w_shape=shape)
    b.output(b.dequantize(y), 4)
    x = images((4, 5, 5))
    x[0, 0, 0, 0], x[1, 1, 1, 1] = np.inf, -np.inf
    want = engine_oracle.run(b.proto(), x)[0]
    for options in ({"engine": "reference"}, {"isa": "avx2"}, {}):
        with Session(b.model(), **options) as session:  # type: ignore[arg-type]
            assert np.array_equal(session.run(x), want)


def test_float32_layers_are_close() -> None:
    """The one part that is not bit-exact: order of additions. K = 54 products: well within 1e-5 of the largest."""
    b = Builder(9, 6, 10, 7)
    w = [b.constant(b.rng.normal(size=s), np.float32) for s in ((8, 3, 3, 3), (8,), (5, 8 * 5 * 4), (5,))]
    x = b.node("Conv", ["image", *w[:2]], None, strides=[2, 2], pads=[1, 1, 1, 1], group=2, kernel_shape=[3, 3])
    x = b.node("Reshape", [b.node("Relu", [x], None), b.constant([0, -1], np.int64)], None)
    b.output(b.node("Gemm", [x, *w[2:]], None, transB=1), 2)
    pixels = images((6, 10, 7))
    want = engine_oracle.run(b.proto(), pixels)[0]
    with Session(b.model(), threads=2) as session:
        np.testing.assert_allclose(session.run(pixels), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_several_inputs_and_outputs() -> None:
    b = Builder(4, 6, 4, 4)
    b.inputs.append(("second", (6, 4, 4)))
    y = b.add(b.quantize(), b.quantize("second"))
    b.output(b.dequantize(y), 4)
    b.output(b.dequantize(b.rescale(y)), 4)
    x, z = images((6, 4, 4)), images((6, 4, 4), seed=2)
    with Session(b.model()) as session:
        got = session.run({"second": z, "image": x})
    assert isinstance(got, dict)
    for output, expected in zip(got.values(), engine_oracle.run(b.proto(), x, z), strict=True):
        assert np.array_equal(output, expected)
