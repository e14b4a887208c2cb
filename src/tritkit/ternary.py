"""`Ternary`: codes in {−1, 0, +1} and their scales, the one value that every part of tritkit exchanges.

A weight of shape [O, I, kh, kw] (convolution) or [O, I] (linear) stands as

    w_i = +Wp  where code_i = +1,    0  where code_i = 0,    −Wn  where code_i = −1

with scales for the whole tensor, for each output channel, or for each group of consecutive input channels
at one (output, ky, kx). This file also fixes the 2-bit storage and the integer codebook that deployed
networks use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from tritkit.errors import UserError

__all__ = ["CODEBOOK_LIMIT", "Codebook", "Ternary", "pack_codes", "powers_of_two", "unpack_codes"]

CODEBOOK_LIMIT = 64
"""Largest integer in a codebook: u8 × 64 + u8 × 64 fits the int16 of the AVX2 byte product, 65 would not."""


class Codebook(NamedTuple):
    """A ternary weight in integers: weight = ws · (p where code = +1, 0, −n where code = −1).

    codes: int8 in {−1, 0, 1}, the weight's shape.
    p, n:  int8 in [1, limit]; shape [O], or the scales' shape [O, G, kh, kw] for group scales.
    ws:    float32 [O], positive: the value of one unit in that output channel.
    """

    codes: Tensor
    p: Tensor
    n: Tensor
    ws: Tensor


@dataclass(frozen=True, eq=False)
class Ternary:
    """A ternary weight.

    codes: int8 in {−1, 0, +1}, the weight's shape [O, ...].
    scale_pos, scale_neg: float32, finite, ≥ 0, and > 0 wherever a code uses them. Both have the same shape:
        one element                       one scale for the tensor,
        [O, 1, ..., 1]                    one for each output channel,
        [O, ceil(I / N), kh, kw]          with `group_size` = N: element [o, i // N, y, x] scales the weight
                                          [o, i, y, x]; the last group of a row is shorter when N does not
                                          divide I.
    group_size: N for group scales, else None.

    Symmetric weights hold the same tensor twice (`scale_pos is scale_neg`); `Ternary.of` makes them.
    Raises UserError (a ValueError) when any of this does not hold.
    """

    codes: Tensor
    scale_pos: Tensor
    scale_neg: Tensor
    group_size: int | None = None

    def __post_init__(self) -> None:
        _check_codes(self.codes)
        _check_layout(self.codes, self.scale_pos, self.scale_neg, self.group_size)
        _check_scale("scale_pos", self.expand(self.scale_pos), self.codes > 0)
        if self.scale_neg is not self.scale_pos:
            _check_scale("scale_neg", self.expand(self.scale_neg), self.codes < 0)

    @classmethod
    def of(cls, codes: Tensor, scale: Tensor, group_size: int | None = None) -> Ternary:
        """The symmetric weight scale · codes."""
        return cls(codes, scale, scale, group_size)

    @property
    def granularity(self) -> str:
        """`"tensor"`, `"channel"` or `"group"`: what one scale covers."""
        if self.group_size is not None:
            return "group"
        return "tensor" if self.scale_pos.numel() == 1 else "channel"

    @property
    def symmetric(self) -> bool:
        """Whether Wp = Wn everywhere."""
        return self.scale_pos is self.scale_neg or torch.equal(self.scale_pos, self.scale_neg)

    @property
    def density(self) -> float:
        """Share of the weights that are not zero, in [0, 1]."""
        return int(torch.count_nonzero(self.codes)) / self.codes.numel()

    def bits(self, scale_bits: int = 32) -> int:
        """Storage in bits: 2 a code, and `scale_bits` for each scale (Wp and Wn count once when
        symmetric).
        """
        scales = self.scale_pos.numel() * (1 if self.symmetric else 2)
        return 2 * self.codes.numel() + scale_bits * scales

    def expand(self, scale: Tensor) -> Tensor:
        """A scale in a form that broadcasts against the codes by PyTorch's rules."""
        if self.group_size is None:
            return scale
        return scale.repeat_interleave(self.group_size, dim=1)[:, : self.codes.shape[1]]

    def dequantize(self) -> Tensor:
        """The float32 weight: +Wp, 0 or −Wn, in the shape of the codes."""
        zero = self.scale_pos.new_zeros(())
        minus = torch.where(self.codes < 0, -self.expand(self.scale_neg), zero)
        return torch.where(self.codes > 0, self.expand(self.scale_pos), minus)

    def pack(self) -> Tensor:
        """The codes as uint8 [O, ceil(K / 4)] with K = I·kh·kw; see `pack_codes`."""
        return pack_codes(self.codes)

    def to(self, device: torch.device | str) -> Ternary:
        """The same value on another device."""
        pos = self.scale_pos.to(device)
        neg = pos if self.scale_neg is self.scale_pos else self.scale_neg.to(device)
        return Ternary(self.codes.to(device), pos, neg, self.group_size)

    def codebook(self, limit: int = CODEBOOK_LIMIT) -> Codebook:
        """The weight in integers, one unit `ws` for each output channel.

        In each channel the larger of Wp and Wn becomes `limit` and the other the nearest integer, at least
        1 (half to even). ws = larger / limit, so the larger scale is exact when `limit` is a power of two.
        Where both become the same integer they become 1 and ws the larger scale: symmetric weights have
        p = n = 1. Group scales share the channel's unit: the largest scale of the channel is `limit`.

        A scale that no code of its channel (of the tensor, for tensor scales) uses follows the other one. A
        channel without any scale above zero gets p = n = 1 and the largest unit of the other channels
        (1/limit if there is none), because its ws still has to carry a bias.

        Raises UserError unless 1 ≤ limit ≤ 127.
        """
        p, n, ws = self._grid(limit)
        rows = self.codes.shape[0]
        if self.group_size is None:
            return Codebook(self.codes, p.expand(rows, 1)[:, 0], n.expand(rows, 1)[:, 0], ws.expand(rows))
        return Codebook(self.codes, p.view_as(self.scale_pos), n.view_as(self.scale_pos), ws)

    def snap(self, limit: int = CODEBOOK_LIMIT) -> Ternary:
        """The same codes with scales on the codebook's grid: what a deployed network computes with.
        Idempotent.
        """
        p, n, ws = self._grid(limit)
        pos = (p * ws[:, None]).view_as(self.scale_pos)
        if torch.equal(p, n):
            return Ternary.of(self.codes, pos, self.group_size)
        return Ternary(self.codes, pos, (n * ws[:, None]).view_as(self.scale_neg), self.group_size)

    def _grid(self, limit: int) -> tuple[Tensor, Tensor, Tensor]:
        """p, n: int8 [R, M] and ws: float32 [R], with R rows (1 for tensor scales, else O) of M scales
        each.
        """
        if not 1 <= limit <= 127:
            raise UserError(f"a codebook holds int8: its limit must be in [1, 127], got {limit}")
        pos, neg = self._rows_of_scales()
        top = torch.maximum(pos, neg).amax(dim=1, keepdim=True)  # [R, 1]
        dead = top == 0
        safe = torch.where(dead, 1.0, top)
        p, n = ((limit * side / safe).round().clamp(1, limit) for side in (pos, neg))
        same = ((p == n) & (p == p[:, :1])).all(dim=1, keepdim=True)
        ws = torch.where(same, top, top / limit)
        spare = float(ws.max()) or 1 / limit
        ws = torch.where(dead, spare, ws)[:, 0]
        p, n = (torch.where(same, 1.0, side).to(torch.int8) for side in (p, n))
        return p, n, ws.to(torch.float32)

    def _rows_of_scales(self) -> tuple[Tensor, Tensor]:
        """Both scales as float64 [R, M]; where a row uses only one of them, the other follows it."""
        rows = 1 if self.granularity == "tensor" else self.codes.shape[0]
        pos, neg = (scale.to(torch.float64).reshape(rows, -1) for scale in (self.scale_pos, self.scale_neg))
        codes = self.codes.reshape(rows, -1)
        plus = (codes > 0).any(dim=1, keepdim=True)
        minus = (codes < 0).any(dim=1, keepdim=True)
        return torch.where(plus | ~minus, pos, neg), torch.where(minus | ~plus, neg, pos)


def powers_of_two(scales: Tensor, counts: Tensor, limit: int = CODEBOOK_LIMIT) -> Tensor:
    """Scales [R, M] ≥ 0 with each row on a grid unit · {1, 2, 4, ... limit}, in their shape and dtype.

    counts: [R, M] ≥ 0, how much each scale weighs, such as the number of its codes that are not zero. The unit of a
    row is the one, of all there are, with the least Σ counts · (scale − grid value)², each scale going to its nearest
    grid value (halfway up to the next: to the lower). Zeros stay zero, and a row without counts becomes zero.
    The codebook of such scales holds powers of two only.
    """
    each = scales.to(torch.float64)
    weight = torch.where(scales > 0, counts, 0).to(torch.float64)
    powers = 2.0 ** torch.arange(limit.bit_length() - 1, dtype=torch.float64, device=scales.device)  # [P]: 1 .. limit/2
    # With a huge unit all are nearest to 1 of it. As it falls below scale / (1.5 · 2^k), 2^k turns into 2^(k+1), which
    # changes along = Σ counts · scale · 2^k and size = Σ counts · 4^k. The best unit for some powers is along / size,
    # and its error is less than without it by along² / size.
    turns = (each[:, :, None] / (1.5 * powers)).flatten(1)
    order = turns.argsort(dim=1, descending=True, stable=True)
    steps = ((weight * each)[:, :, None] * powers, weight[:, :, None] * 3 * powers.square())
    first = ((weight * each).sum(dim=1, keepdim=True), weight.sum(dim=1, keepdim=True))
    along, size = (
        torch.cat([one, one + step.flatten(1).gather(1, order).cumsum(dim=1)], dim=1)
        for one, step in zip(first, steps, strict=True)
    )
    size = size.clamp(min=torch.finfo(torch.float64).tiny)
    best = (along / size.sqrt()).argmax(dim=1, keepdim=True)
    unit = (along.gather(1, best) / size.gather(1, best)).to(scales.dtype)  # rounded first: its powers are then exact
    exponent = (each[:, :, None] > 1.5 * powers * unit.to(torch.float64)[:, :, None]).sum(dim=2)
    return torch.where(scales > 0, unit * 2.0**exponent, 0.0).to(scales.dtype)


def pack_codes(codes: Tensor) -> Tensor:
    """2-bit storage of int8 codes [O, ...]: uint8 [O, ceil(K / 4)] with K the product of the other
    dimensions.

    Each row is one output channel in the weight's memory order. A code is 00 (zero), 01 (plus) or 11
    (minus); four share a byte, the first in its two lowest bits; the last byte of a row is filled with 00.
    """
    _check_codes(codes)
    rows = codes.reshape(codes.shape[0], -1)
    missing = -rows.shape[1] % 4
    quads = torch.nn.functional.pad(rows, (0, missing)).reshape(rows.shape[0], -1, 4)
    bits = (quads & 3).to(torch.uint8)
    return bits[..., 0] | bits[..., 1] << 2 | bits[..., 2] << 4 | bits[..., 3] << 6


def unpack_codes(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The int8 codes of `shape` [O, ...] behind `packed`, uint8 [O, ceil(K / 4)]: the inverse of
    `pack_codes`.

    Raises UserError on another dtype or shape, on the bit pair 10, and on padding that is not 00.
    """
    rows, length = shape[0], prod(shape[1:])
    expected = (rows, -(-length // 4))
    if packed.dtype != torch.uint8 or tuple(packed.shape) != expected:
        raise UserError(
            f"packed codes of shape {list(shape)} are uint8 {list(expected)}, got {packed.dtype} {list(packed.shape)}"
        )
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=packed.device)
    bits = ((packed[..., None] >> shifts) & 3).reshape(rows, -1)
    if bool((bits == 2).any()):
        raise UserError("packed codes hold the bit pair 10, which stands for no code: the data are damaged")
    if bool(bits[:, length:].any()):
        raise UserError("packed codes hold bits beyond the end of a row: the data are damaged or of another shape")
    codes = bits.to(torch.int8)
    return torch.where(codes == 3, -1, codes)[:, :length].reshape(tuple(shape)).contiguous()


def _check_codes(codes: Tensor) -> None:
    if not isinstance(codes, Tensor) or codes.dtype != torch.int8:
        given = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise UserError(f"codes must be an int8 tensor, got {given}")
    if codes.dim() == 0 or codes.numel() == 0:
        raise UserError(f"codes must have the weight's shape [O, ...] without empty sides, got {list(codes.shape)}")
    low, high = codes.aminmax()
    if int(low) < -1 or int(high) > 1:
        raise UserError(f"codes must be −1, 0 or 1, got values from {int(low)} to {int(high)}")


def _check_layout(codes: Tensor, pos: Tensor, neg: Tensor, group_size: int | None) -> None:
    for name, scale in (("scale_pos", pos), ("scale_neg", neg)):
        if not isinstance(scale, Tensor) or scale.dtype != torch.float32:
            given = scale.dtype if isinstance(scale, Tensor) else type(scale).__name__
            raise UserError(f"{name} must be a float32 tensor, got {given}")
        if scale.device != codes.device:
            raise UserError(f"{name} is on {scale.device}, the codes on {codes.device}: they must share a device")
    if pos.shape != neg.shape:
        raise UserError(f"scale_pos and scale_neg must have one shape, got {list(pos.shape)} and {list(neg.shape)}")
    if group_size is None:
        _check_dense_shape(codes, pos)
    else:
        _check_group_shape(codes, pos, group_size)


def _check_dense_shape(codes: Tensor, scale: Tensor) -> None:
    channel = (codes.shape[0], *[1] * (codes.dim() - 1))
    if tuple(scale.shape) != channel and (scale.numel() != 1 or scale.dim() > codes.dim()):
        raise UserError(
            f"scales of codes {list(codes.shape)} have one element or the shape {list(channel)} "
            f"(group scales need group_size), got {list(scale.shape)}"
        )


def _check_group_shape(codes: Tensor, scale: Tensor, group_size: int) -> None:
    if not isinstance(group_size, int) or isinstance(group_size, bool) or group_size < 1:
        raise UserError(f"group_size must be a positive integer or None, got {group_size!r}")
    if codes.dim() < 2:
        raise UserError(f"group scales need codes of shape [O, I, ...], got {list(codes.shape)}")
    expected = (codes.shape[0], -(-codes.shape[1] // group_size), *codes.shape[2:])
    if tuple(scale.shape) != expected:
        raise UserError(
            f"scales of codes {list(codes.shape)} in groups of {group_size} input channels have the shape "
            f"{list(expected)}, got {list(scale.shape)}"
        )


def _check_scale(name: str, scale: Tensor, used: Tensor) -> None:
    if not bool(torch.isfinite(scale).all()):
        raise UserError(f"{name} must be finite, got NaN or infinity")
    if bool((scale < 0).any()):
        raise UserError(f"{name} must not be negative, got {float(scale.min()):g}; the sign belongs to the codes")
    if bool(((scale == 0) & used).any()):
        raise UserError(f"{name} is zero where codes use it: set those codes to 0 or give a positive scale")
