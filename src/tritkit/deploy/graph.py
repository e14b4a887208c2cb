"""The integer network as plain data: what export lowers to, the writer writes, the references run (docs/format.md).

A `Graph` holds values (tensors with a shape for one image and, if quantized, a scale and zero point) and nodes in
topological order. The operations are those of docs/format.md by the same names; a convolution or linear layer holds its
weights as `TernaryWeight` or `Int8Weight`, whose kind decides the operation's name in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tritkit.errors import UserError

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

WEIGHT_LIMIT = 64  # |int8 weight| and codebook entries
BIAS_LIMIT = 2**30
K_LIMIT = 65_792  # weights an output: 65,792 · 255 · 64 + 2^30 < 2^31


@dataclass(frozen=True)
class Quant:
    """u8 codes q that mean scale · (q − zero_point); scale is a float32 > 0, zero_point 0..255."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0 and float(np.float32(self.scale)) == self.scale):
            raise UserError(f"a scale must be a positive float32, got {self.scale!r}")
        if not 0 <= self.zero_point <= 255:
            raise UserError(f"a zero point must be 0 to 255, got {self.zero_point}")


@dataclass(frozen=True)
class Value:
    """A tensor: shape of one image (no batch), float32 if `quant` is None, else u8."""

    name: str
    shape: tuple[int, ...]
    quant: Quant | None = None


@dataclass(frozen=True)
class TernaryWeight:
    """codes int8 [O, I, ...] in {−1, 0, 1}; p, n int8 in 1..64: code +1 means p, −1 means −n.

    group_size: None for p, n of shape [O], one pair an output channel; N (1 ≤ N ≤ I) for p, n of shape
        [O, ceil(I / N), ...], one pair for each N consecutive input channels at one position of the kernel.
    """

    codes: Int8
    p: Int8
    n: Int8
    method: str = ""
    group_size: int | None = None
    kind: ClassVar[str] = "ternary"

    @property
    def prefix(self) -> str:
        """What the names of its operations begin with."""
        return "Ternary" if self.group_size is None else "TernaryGroup"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def integers(self) -> Int8:
        """The weights as int8, [O, ...]."""
        p, n = self.expand(self.p), self.expand(self.n)
        return np.where(self.codes > 0, p, np.where(self.codes < 0, -n, 0)).astype(np.int8)

    def expand(self, side: Int8) -> Int8:
        """p or n in a form that broadcasts against the codes."""
        if self.group_size is None:
            return side.reshape(-1, *[1] * (self.codes.ndim - 1))
        return np.repeat(side, self.group_size, axis=1)[:, : self.codes.shape[1]]

    def sides_shape(self) -> tuple[int, ...]:
        """The shape that p and n have."""
        outputs, channels, *kernel = self.codes.shape
        return (outputs,) if self.group_size is None else (outputs, -(-channels // self.group_size), *kernel)


@dataclass(frozen=True)
class Int8Weight:
    """int8 weights [O, ...] within ±64."""

    values: Int8
    method: str = ""
    kind: ClassVar[str] = "int8"
    prefix: ClassVar[str] = "Int8"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def integers(self) -> Int8:
        """The weights as int8, [O, ...]."""
        return self.values


Weight = TernaryWeight | Int8Weight


def operation(weight: Weight, conv: bool, quantized: bool) -> str:
    """The name in the file of a convolution or linear layer with this weight."""
    if conv and isinstance(weight, Int8Weight):
        return "QLinearConv"
    return weight.prefix + ("QConv" if conv else "QGemm" if quantized else "Gemm")


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operation: names of its inputs and its output; `name` is the place in the trained network."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True)
class Quantize(Node):
    """QuantizeLinear"""


@dataclass(frozen=True, kw_only=True)
class Dequantize(Node):
    """DequantizeLinear"""


@dataclass(frozen=True, kw_only=True)
class _Layer(Node):
    weight: Weight
    w_scale: Float32  # [O], > 0
    bias: Int32  # [O], in units of x_scale · w_scale


@dataclass(frozen=True, kw_only=True)
class QConv(_Layer):
    """TernaryQConv or QLinearConv; weight [O, C / group, kh, kw]."""

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilations: tuple[int, int] = (1, 1)
    group: int = 1


@dataclass(frozen=True, kw_only=True)
class QGemm(_Layer):
    """TernaryQGemm or Int8QGemm, or TernaryGemm or Int8Gemm where the output value has no quant; weight [O, K]."""


@dataclass(frozen=True, kw_only=True)
class QAdd(Node):
    """Sum of two tensors of one shape."""


@dataclass(frozen=True, kw_only=True)
class QAveragePool(Node):
    """Sums over runs of rows and columns, divided by `count`; rows [OH, H], cols [OW, W] 0/1, count [OH, OW]."""

    rows: Float32
    cols: Float32
    count: Float32


@dataclass(frozen=True, kw_only=True)
class QRescale(Node):
    """The same values with another scale and zero point."""


@dataclass(frozen=True, kw_only=True)
class MaxPool(Node):
    """Maximum over a window; padding is ignored."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Clip(Node):
    """Codes limited to [low, high]."""

    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class Pad(Node):
    """Zeros (codes of the zero point) around; `before` and `after` have one entry a dimension without the batch."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Slice(Node):
    """start:stop:step for each dimension without the batch; 0 ≤ start < stop ≤ size, step ≥ 1."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Concat(Node):
    """Tensors of one quant side by side; `axis` counts the batch, so it is at least 1."""

    axis: int


@dataclass(frozen=True, kw_only=True)
class Reshape(Node):
    """The same codes in the output value's shape; the batch stays."""


@dataclass(frozen=True, kw_only=True)
class FloatConv(Node):
    """Conv in float32, for a layer kept so by policy; weight [O, C / group, kh, kw], bias [O]."""

    weight: Float32
    bias: Float32
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1


@dataclass(frozen=True, kw_only=True)
class FloatGemm(Node):
    """Gemm in float32; weight [O, K], bias [O]."""

    weight: Float32
    bias: Float32


@dataclass(frozen=True, kw_only=True)
class FloatClip(Node):
    """Values limited to [low, high] in float32; high may be infinite (then it is a ReLU for low = 0)."""

    low: float
    high: float


@dataclass(frozen=True)
class Graph:
    """An integer network. `values` has every tensor by name; `metadata` becomes the file's metadata_props."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]
    nodes: tuple[Node, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def quant(self, name: str) -> Quant:
        """The quantization of a value that must have one."""
        quant = self.values[name].quant
        if quant is None:
            raise UserError(f"tensor {name} is float32 where a quantized one is needed")
        return quant

    def layers(self) -> Iterator[QConv | QGemm | FloatConv | FloatGemm]:
        """The nodes that have weights."""
        for node in self.nodes:
            if isinstance(node, (QConv, QGemm, FloatConv, FloatGemm)):
                yield node

    def validate(self) -> None:
        """Raise UserError where a rule of docs/format.md is broken; names the node."""
        made = set(self.inputs)
        for node in self.nodes:
            missing = [x for x in (*node.inputs, node.output) if x not in self.values]
            if missing or any(x not in made for x in node.inputs) or node.output in made:
                raise UserError(
                    f"node {node.name} has undefined, unordered or repeated tensors: {missing or node.inputs}"
                )
            made.add(node.output)
            if isinstance(node, _Layer):
                _check_layer(node)
        lost = [x for x in self.outputs if x not in made]
        if lost:
            raise UserError(f"outputs {lost} are made by no node")


def _check_layer(node: _Layer) -> None:
    outputs, k = node.weight.shape[0], int(np.prod(node.weight.shape[1:]))

    def fail(what: str) -> None:
        raise UserError(f"layer {node.name}: {what}")

    if k > K_LIMIT:
        fail(f"{k} weights an output; at most {K_LIMIT} keep int32 sums exact")
    if isinstance(node.weight, TernaryWeight) and (wrong := _wrong_sides(node.weight)):
        fail(wrong)
    integers: NDArray[Any] = node.weight.integers().astype(np.int64)
    if np.abs(integers).max(initial=0) > WEIGHT_LIMIT:
        fail(f"an integer weight beyond ±{WEIGHT_LIMIT}")
    if node.bias.shape != (outputs,) or np.abs(node.bias.astype(np.int64)).max(initial=0) > BIAS_LIMIT:
        fail(f"bias must be [{outputs}] within ±2^30")
    if node.w_scale.shape != (outputs,) or not (np.isfinite(node.w_scale).all() and (node.w_scale > 0).all()):
        fail(f"w_scale must be [{outputs}], finite and positive")


def _wrong_sides(weight: TernaryWeight) -> str:
    """What is wrong with p and n, or nothing. A channel without codes may have any."""
    size = weight.group_size
    if size is not None and not 1 <= size <= weight.shape[1]:
        return f"group_size must be 1 to its {weight.shape[1]} channels, got {size}"
    wanted = weight.sides_shape()
    if weight.p.shape != wanted or weight.n.shape != wanted:
        return f"p and n must be {list(wanted)}, got {list(weight.p.shape)} and {list(weight.n.shape)}"
    used = np.ones(wanted, bool) if size is not None else weight.codes.reshape(len(weight.codes), -1).any(axis=1)
    low = min(int(np.where(used, side, 1).min(initial=1)) for side in (weight.p, weight.n))
    return "" if low >= 1 else f"p and n must be 1 to {WEIGHT_LIMIT}, got {low}"
