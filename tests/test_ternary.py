"""`Ternary`: its invariants, its storage bit by bit, and its integer codebook."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tritkit.errors import UserError
from tritkit.ternary import Ternary, pack_codes, powers_of_two, unpack_codes

PROFILE = settings(derandomize=True, deadline=None, max_examples=60)


def codes(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int8)


def random_codes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-1, 2, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


ROW = codes([1, 0, -1, 1], [0, -1, 1, 0])
ONE = torch.tensor(1.0)


class TestValue:
    def test_tensor_scales(self) -> None:
        value = Ternary(ROW, torch.tensor(2.0), torch.tensor(0.5))
        assert value.dequantize().tolist() == [[2, 0, -0.5, 2], [0, -0.5, 2, 0]]
        assert value.dequantize().dtype == torch.float32
        assert (value.granularity, value.symmetric, value.density) == ("tensor", False, 5 / 8)
        assert value.bits() == 2 * 8 + 2 * 32

    def test_channel_scales(self) -> None:
        value = Ternary(ROW, torch.tensor([[2.0], [3.0]]), torch.tensor([[4.0], [5.0]]))
        assert value.dequantize().tolist() == [[2, 0, -4, 2], [0, -5, 3, 0]]
        assert value.granularity == "channel"
        assert value.bits(scale_bits=8) == 2 * 8 + 4 * 8

    def test_group_scales_with_a_short_last_group(self) -> None:
        scale = torch.tensor([[2.0, 3.0], [4.0, 5.0]])  # columns 0-2 and 3
        value = Ternary.of(ROW, scale, group_size=3)
        assert value.dequantize().tolist() == [[2, 0, -2, 3], [0, -4, 4, 0]]
        assert value.granularity == "group"
        assert value.symmetric
        assert value.bits() == 2 * 8 + 4 * 32

    def test_group_scales_of_a_convolution_belong_to_one_position(self) -> None:
        kernel = random_codes(3, 5, 2, 2)
        scale = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1)) + 0.5
        dense = Ternary.of(kernel, scale, group_size=2).dequantize()
        for o, i, y, x in np.ndindex(3, 5, 2, 2):
            assert float(dense[o, i, y, x]) == int(kernel[o, i, y, x]) * float(scale[o, i // 2, y, x])

    def test_symmetric_by_value_or_identity(self) -> None:
        assert Ternary.of(ROW, ONE).scale_pos is Ternary.of(ROW, ONE).scale_neg
        assert Ternary(ROW, ONE, ONE.clone()).symmetric
        assert not Ternary(ROW, ONE, 2 * ONE).symmetric

    def test_moves_and_stays_symmetric(self) -> None:
        value = Ternary.of(ROW, ONE).to("cpu")
        assert value.scale_pos is value.scale_neg

    def test_unused_scales_may_be_zero(self) -> None:
        assert Ternary(codes([1, 0]), ONE, 0 * ONE).dequantize().tolist() == [[1, 0]]

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Ternary.of(ROW, ONE).codes = ROW  # type: ignore[misc]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Ternary.of(ROW.float(), ONE), "codes must be an int8 tensor, got torch.float32"),
        (lambda: Ternary.of([[1]], ONE), "codes must be an int8 tensor, got list"),
        (lambda: Ternary.of(codes([2, 0]), ONE), "codes must be −1, 0 or 1, got values from 0 to 2"),
        (lambda: Ternary.of(codes([-128, 0]), ONE), "got values from -128 to 0"),
        (lambda: Ternary.of(codes([]), ONE), r"without empty sides, got \[1, 0\]"),
        (lambda: Ternary.of(torch.tensor(1, dtype=torch.int8), ONE), r"the weight's shape .* got \[\]"),
        (lambda: Ternary.of(ROW, ONE.double()), "scale_pos must be a float32 tensor, got torch.float64"),
        (lambda: Ternary(ROW, ONE, 1.0), "scale_neg must be a float32 tensor, got float"),
        (lambda: Ternary(ROW, ONE, torch.ones(2, 1)), r"one shape, got \[\] and \[2, 1\]"),
        (lambda: Ternary.of(ROW, torch.ones(2)), r"one element or the shape \[2, 1\] .* got \[2\]"),
        (lambda: Ternary.of(ROW, torch.ones(1, 4)), r"need group_size\), got \[1, 4\]"),
        (lambda: Ternary.of(ROW, torch.ones(1, 1, 1)), r"got \[1, 1, 1\]"),
        (lambda: Ternary.of(ROW, torch.ones(2, 2), 3.0), "group_size must be a positive integer or None, got 3.0"),
        (lambda: Ternary.of(ROW, torch.ones(2, 2), 0), "group_size must be a positive integer or None, got 0"),
        (lambda: Ternary.of(ROW, torch.ones(2, 1), 3), r"groups of 3 .* have the shape \[2, 2\], got \[2, 1\]"),
        (lambda: Ternary.of(ROW[0], torch.ones(2), 2), r"need codes of shape \[O, I, ...\], got \[4\]"),
        (lambda: Ternary.of(ROW, ONE * float("nan")), "scale_pos must be finite"),
        (lambda: Ternary(ROW, ONE, ONE * float("inf")), "scale_neg must be finite"),
        (lambda: Ternary(ROW, ONE, -ONE), "scale_neg must not be negative, got -1"),
        (lambda: Ternary(ROW, 0 * ONE, ONE), "scale_pos is zero where codes use it"),
        (lambda: Ternary.of(ROW, torch.tensor([[1.0], [0.0]])), "scale_pos is zero where codes use it"),
    ],
)
def test_what_is_no_ternary_weight(build: Callable[[], Ternary], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


class TestPacking:
    def test_golden_bytes(self) -> None:
        # 1, 0, −1, 1 → 01, 00, 11, 01 from the low bits: 0b01_11_00_01; the fifth code alone: 0b00_00_00_11
        assert pack_codes(codes([1, 0, -1, 1, -1])).tolist() == [[0b01110001, 0b00000011]]
        assert pack_codes(codes([1, 1, 1, 1], [-1, -1, -1, -1])).tolist() == [[0x55], [0xFF]]
        assert Ternary.of(ROW, ONE).pack().tolist() == [[0x71], [0x1C]]

    @pytest.mark.parametrize("position", range(7))
    @pytest.mark.parametrize(("code", "bits"), [(1, 0b01), (-1, 0b11)])
    def test_one_hot(self, position: int, code: int, bits: int) -> None:
        row = [0] * 7
        row[position] = code
        expected = [0, 0]
        expected[position // 4] = bits << 2 * (position % 4)
        assert pack_codes(codes(row)).tolist() == [expected]

    def test_convolutions_go_in_memory_order(self) -> None:
        kernel = torch.zeros(1, 2, 2, 2, dtype=torch.int8)
        kernel[0, 1, 0, 1] = 1  # 1·4 + 0·2 + 1 = 5: second byte, second pair
        assert pack_codes(kernel).tolist() == [[0, 0b0100]]
        strided = kernel.to(memory_format=torch.channels_last)
        assert pack_codes(strided).tolist() == [[0, 0b0100]]

    @PROFILE
    @given(st.integers(1, 5), st.integers(1, 17), st.integers(0, 2**31))
    def test_round_trip_and_size(self, rows: int, length: int, seed: int) -> None:
        original = random_codes(rows, length, seed=seed)
        packed = pack_codes(original)
        assert packed.dtype == torch.uint8
        assert packed.shape == (rows, (length + 3) // 4)
        back = unpack_codes(packed, (rows, length))
        assert back.dtype == torch.int8
        assert torch.equal(back, original)

    def test_unpack_restores_the_shape(self) -> None:
        original = random_codes(3, 5, 3, 3)
        assert torch.equal(unpack_codes(pack_codes(original), original.shape), original)

    @pytest.mark.parametrize(
        ("packed", "shape", "message"),
        [
            ([[0b10]], (1, 4), "bit pair 10"),
            ([[0b01000000]], (1, 3), "bits beyond the end of a row"),
            ([[0, 0]], (1, 4), r"shape \[1, 4\] are uint8 \[1, 1\], got torch.uint8 \[1, 2\]"),
        ],
    )
    def test_damaged_data(self, packed: list[list[int]], shape: tuple[int, int], message: str) -> None:
        with pytest.raises(UserError, match=message):
            unpack_codes(torch.tensor(packed, dtype=torch.uint8), shape)

    def test_unpack_wants_uint8(self) -> None:
        with pytest.raises(UserError, match=r"got torch\.int8"):
            unpack_codes(torch.zeros(1, 1, dtype=torch.int8), (1, 4))


def in_integers(value: Ternary, limit: int = 64) -> np.ndarray:
    """ws · (p, 0, −n)[codes] in float32, written out element by element in NumPy."""
    book = value.codebook(limit)
    out = np.zeros(tuple(value.codes.shape), dtype=np.float32)
    p, n, ws = book.p.numpy(), book.n.numpy(), book.ws.numpy()
    for index in np.ndindex(out.shape):
        o = index[0]
        cell = o if value.group_size is None else (o, index[1] // value.group_size, *index[2:])
        code = int(book.codes[index])
        integer = int(p[cell]) if code > 0 else -int(n[cell]) if code < 0 else 0
        out[index] = np.float32(integer) * ws[o]
    return out


class TestCodebook:
    def test_larger_scale_is_64_and_exact(self) -> None:
        book = Ternary(ROW, torch.tensor(0.7), torch.tensor(0.3)).codebook()
        assert book.p.tolist() == [64, 64]
        assert book.n.tolist() == [27, 27]  # 64 · 3 / 7 = 27.43
        assert (book.p.dtype, book.n.dtype, book.ws.dtype) == (torch.int8, torch.int8, torch.float32)
        assert torch.equal(book.ws * 64, torch.tensor([0.7, 0.7]))

    def test_each_channel_has_its_own_unit(self) -> None:
        book = Ternary(ROW, torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [1e-9]])).codebook()
        assert book.p.tolist() == [32, 64]
        assert book.n.tolist() == [64, 1]
        assert book.ws.tolist() == [2 / 64, 3 / 64]

    def test_symmetric_is_one_and_one(self) -> None:
        book = Ternary.of(ROW, torch.tensor(0.3)).codebook()
        assert (book.p.tolist(), book.n.tolist()) == ([1, 1], [1, 1])
        assert torch.equal(book.ws, torch.tensor([0.3, 0.3]))

    def test_scales_that_round_to_the_same_integer_become_symmetric(self) -> None:
        book = Ternary(ROW, torch.tensor(1.0), torch.tensor(0.999)).codebook()
        assert (book.p.tolist(), book.n.tolist(), book.ws.tolist()) == ([1, 1], [1, 1], [1.0, 1.0])

    @pytest.mark.parametrize("code", [1, -1])
    def test_a_side_without_codes_does_not_cost_precision(self, code: int) -> None:
        used, unused = torch.tensor(1e-3), torch.tensor(5.0)
        sides = (used, unused) if code > 0 else (unused, used)
        book = Ternary(codes([code, 0]), *sides).codebook()
        assert (book.p.tolist(), book.n.tolist()) == ([1], [1])
        assert torch.equal(book.ws, torch.tensor([1e-3]))

    def test_an_empty_channel_borrows_a_unit(self) -> None:
        scale = torch.tensor([[0.5], [0.0], [0.25]])
        book = Ternary.of(codes([1, 0], [0, 0], [-1, 1]), scale).codebook()
        assert book.ws.tolist() == [0.5, 0.5, 0.25]
        assert Ternary.of(codes([0]), torch.tensor(0.0)).codebook().ws.tolist() == [1 / 64]

    def test_groups_share_the_unit_of_their_channel(self) -> None:
        value = Ternary.of(ROW, torch.tensor([[1.0, 0.5], [0.1, 0.2]]), group_size=2)
        book = value.codebook()
        assert book.p.tolist() == [[64, 32], [32, 64]]
        assert torch.equal(book.n, book.p)
        assert book.ws.shape == (2,)

    @pytest.mark.parametrize("limit", [0, 128, -1])
    def test_limit_is_checked(self, limit: int) -> None:
        with pytest.raises(UserError, match=rf"limit must be in \[1, 127\], got {limit}"):
            Ternary.of(ROW, ONE).codebook(limit)

    scales = st.floats(2.0**-20, 1024.0, width=32)

    @PROFILE
    @given(scales, scales, st.integers(0, 100))
    def test_snap_is_what_the_integers_say(self, pos: float, neg: float, seed: int) -> None:
        value = Ternary(random_codes(2, 9, seed=seed), torch.tensor(pos), torch.tensor(neg))
        snapped = value.snap()
        assert np.array_equal(snapped.dequantize().numpy(), in_integers(value))
        assert np.array_equal(snapped.dequantize().numpy(), in_integers(snapped))
        again = snapped.snap()
        assert torch.equal(again.scale_pos, snapped.scale_pos)
        assert torch.equal(again.scale_neg, snapped.scale_neg)
        assert snapped.granularity == "tensor"
        error = (snapped.dequantize() - value.dequantize()).abs().max()
        top = float(value.dequantize().abs().max())
        # half a unit by rounding, a whole one where a scale below half a unit became one unit
        assert float(error) <= top / 64 * (1 + 1e-6)

    @pytest.mark.parametrize("group_size", [None, 2, 4])
    def test_snap_of_channels_and_groups(self, group_size: int | None) -> None:
        generator = torch.Generator().manual_seed(5)
        shape = (3, 1, 1, 1) if group_size is None else (3, -(-5 // group_size), 3, 3)
        pos, neg = (torch.rand(shape, generator=generator) + 0.1 for _ in range(2))
        value = Ternary(random_codes(3, 5, 3, 3), pos, neg, group_size)
        snapped = value.snap()
        assert snapped.scale_pos.shape == pos.shape
        assert np.array_equal(snapped.dequantize().numpy(), in_integers(value))
        assert np.array_equal(snapped.dequantize().numpy(), in_integers(snapped))
        assert float((snapped.scale_pos - pos).abs().max()) <= 1.1 / 64 / 2 * 1.001

    def test_symmetric_values_are_on_the_grid_already(self) -> None:
        value = Ternary.of(ROW, torch.tensor([[0.3], [0.7]]))
        snapped = value.snap()
        assert torch.equal(snapped.scale_pos, value.scale_pos)
        assert snapped.scale_pos is snapped.scale_neg


class TestPowersOfTwo:
    @pytest.mark.parametrize(
        ("scales", "counts", "wanted"),
        [
            ([1.0, 2.0, 64.0, 0.0], [1, 1, 1, 1], [1.0, 2.0, 64.0, 0.0]),
            # 1 and 2 units: (1 + 2 · 2.4) / (1 + 4) = 1.16; 1 and 1: 1.7 and 30 times the error
            ([1.0, 2.4], [1, 1], [1.16, 2.32]),
            # 1 and 1 unit: (3 + 3 · 4) / 4 = 3.75, error 0.5625 + 3 · 0.0625 = 0.75; 1 and 2: 27 / 13 and 0.92
            ([3.0, 4.0], [1, 3], [3.75, 3.75]),
            # 64 times is the most: (1 + 64 · 1000) / (1 + 64²)
            ([1.0, 1000.0], [1, 1], [64001 / 4097, 64 * 64001 / 4097]),
            # what does not count takes the nearest power of the unit that the others want: 6 is nearer to 4 and to 8
            ([1.0, 5.0, 7.0], [1, 0, 0], [1.0, 4.0, 8.0]),
            ([0.0, 0.0], [3, 3], [0.0, 0.0]),
            ([2.0, 5.0], [0, 0], [0.0, 0.0]),
        ],
    )
    def test_by_hand(self, scales: list[float], counts: list[int], wanted: list[float]) -> None:
        found = powers_of_two(torch.tensor([scales]), torch.tensor([counts]))
        assert found.tolist() == [pytest.approx(wanted, rel=1e-6)]

    def test_no_other_unit_is_better(self) -> None:
        generator = torch.Generator().manual_seed(0)
        scales = torch.rand(20, 9, generator=generator, dtype=torch.float64).pow(3)
        counts = torch.randint(1, 5, (20, 9), generator=generator)
        found = powers_of_two(scales, counts)
        for row, count, mine in zip(scales.numpy(), counts.numpy(), found.numpy(), strict=True):
            units = row.max() * 2 ** np.linspace(-8, 1, 5000)
            grid = units[:, None] * 2 ** np.arange(7)  # [U, 7]
            nearest = np.abs(row[:, None] - grid[:, None, :]).min(axis=2)  # [U, 9]
            assert (count * (mine - row) ** 2).sum() <= (count * nearest**2).sum(axis=1).min() * (1 + 1e-9)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_values_are_exact_powers_and_stay(self, dtype: torch.dtype) -> None:
        scales = torch.rand(8, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
        counts = torch.ones(8, 50)
        found = powers_of_two(scales, counts)
        ratio = found.double() / found.double().amin(dim=1, keepdim=True)
        assert found.dtype == dtype
        assert set(ratio.unique().tolist()) <= {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0}
        assert torch.equal(powers_of_two(found, counts), found)

    def test_the_codebook_holds_powers_only(self) -> None:
        value = random_codes(6, 40, 3, 3)
        pos, neg = torch.rand(2, 6, 90, generator=torch.Generator().manual_seed(2)).clamp(min=1e-4)
        both = powers_of_two(torch.cat([pos, neg], dim=1), torch.ones(6, 180))
        pos, neg = (side.reshape(6, 10, 3, 3) for side in both.chunk(2, dim=1))
        book = Ternary(value, pos, neg, group_size=4).codebook()
        assert set(torch.cat([book.p, book.n]).unique().tolist()) == {1, 2, 4, 8, 16, 32, 64}
