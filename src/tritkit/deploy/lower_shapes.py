"""Geometry of lowering: pads, windows and slices of ATen operations in the form of docs/format.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from tritkit.deploy.trace import place
from tritkit.errors import UnsupportedError

__all__ = [
    "ConvGeometry", "PoolTables", "adaptive_tables", "arguments", "clamp_limits", "conv_geometry", "max_geometry",
    "mean_tables", "pad_widths", "pool_tables", "slice_range",
]  # fmt: skip

Pads = tuple[int, int, int, int]  # top, left, bottom, right
Pair = tuple[int, int]
Shape = tuple[int, ...]


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an ATen call by the names in its schema, defaults filled in."""
    found: dict[str, Any] = {}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if i < len(node.args):
            found[argument.name] = node.args[i]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return found


def _pair(value: Any, default: Pair | None = None) -> Pair:
    numbers = [value] if isinstance(value, int) else list(value)
    if not numbers and default is not None:
        return default
    return (int(numbers[0]), int(numbers[-1]))


# ---- convolutions --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvGeometry:
    """How a convolution's window moves."""

    strides: Pair
    pads: Pads
    dilations: Pair
    group: int


def conv_geometry(node: Node, kernel: Pair, extra: Pads = (0, 0, 0, 0)) -> ConvGeometry:
    """Of an aten.conv2d node; `extra` pads come from a pad operation before it."""
    args = arguments(node)
    dilations = _pair(args["dilation"])
    pads = _conv_pads(args["padding"], kernel, dilations)
    top, left, bottom, right = (a + b for a, b in zip(pads, extra, strict=True))
    return ConvGeometry(_pair(args["stride"]), (top, left, bottom, right), dilations, int(args["groups"]))


def _conv_pads(padding: Any, kernel: Pair, dilations: Pair) -> Pads:
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":  # the odd pixel goes to the end, as in PyTorch
        total = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        return (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    top, left = _pair(padding)
    return (top, left, top, left)


# ---- pools ---------------------------------------------------------------------------------------------------


def max_geometry(node: Node, size: Shape, result: Shape) -> tuple[Pair, Pair, Pads, Pair]:
    """kernel, strides, pads, dilations of an aten.max_pool2d node; ceil_mode becomes pads at the end."""
    args = arguments(node)
    kernel, dilations = _pair(args["kernel_size"]), _pair(args["dilation"])
    strides, begin = _pair(args["stride"], kernel), _pair(args["padding"])
    end = [
        max(begin[i], (result[i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - size[i] - begin[i])
        for i in (0, 1)
    ]
    for i in (0, 1):
        starts = np.arange(result[i]) * strides[i] - begin[i]
        taps = starts[:, None] + np.arange(kernel[i]) * dilations[i]
        if not ((taps >= 0) & (taps < size[i])).any(axis=1).all() or max(begin[i], end[i]) >= kernel[i]:
            raise UnsupportedError(f"{place(node)}: a window of it lies in the padding only")
    return kernel, strides, (begin[0], begin[1], end[0], end[1]), dilations


@dataclass(frozen=True, eq=False)
class PoolTables:
    """rows [OH, H] and cols [OW, W] of 0/1 and count [OH, OW], all float32; see QAveragePool."""

    rows: NDArray[np.float32]
    cols: NDArray[np.float32]
    count: NDArray[np.float32]


def _runs(bounds: Sequence[Pair], size: int) -> NDArray[np.float32]:
    table = np.zeros((len(bounds), size), np.float32)
    for row, (start, stop) in zip(table, bounds, strict=True):
        row[max(start, 0) : min(stop, size)] = 1
    return table


def _mean_of(rows: NDArray[np.float32], cols: NDArray[np.float32]) -> PoolTables:
    return PoolTables(rows, cols, np.outer(rows.sum(axis=1), cols.sum(axis=1)).astype(np.float32))


def mean_tables(size: Shape) -> PoolTables:
    """The mean over all pixels."""
    return _mean_of(np.ones((1, size[0]), np.float32), np.ones((1, size[1]), np.float32))


def adaptive_tables(size: Shape, result: Shape) -> PoolTables:
    """adaptive_avg_pool2d: output i sees the pixels floor(i·H / OH) to ceil((i + 1)·H / OH)."""
    tables = [
        _runs([(i * n // out, -(-(i + 1) * n // out)) for i in range(out)], n)
        for n, out in zip(size, result, strict=True)
    ]
    return _mean_of(tables[0], tables[1])


def pool_tables(node: Node, size: Shape, result: Shape) -> PoolTables:
    """avg_pool2d with any stride, padding, ceil_mode, count_include_pad and divisor."""
    args = arguments(node)
    kernel = _pair(args["kernel_size"])
    strides, pads = _pair(args["stride"], kernel), _pair(args["padding"])
    bounds = [
        [(o * s - p, min(o * s - p + k, n + p)) for o in range(out)]
        for k, s, p, n, out in zip(kernel, strides, pads, size, result, strict=True)
    ]
    tables = _mean_of(_runs(bounds[0], size[0]), _runs(bounds[1], size[1]))
    if args["divisor_override"] is not None:
        count = np.full(tables.count.shape, args["divisor_override"])
    elif args["count_include_pad"]:
        heights, widths = (np.array([stop - start for start, stop in axis]) for axis in bounds)
        count = np.outer(heights, widths)
    else:
        return tables
    return PoolTables(tables.rows, tables.cols, count.astype(np.float32))


# ---- pads, slices, clamps ------------------------------------------------------------------------------------


def pad_widths(node: Node, ndim: int) -> tuple[Shape, Shape]:
    """Widths before and after each axis but the batch, of a pad with zeros. ndim counts the batch."""
    args = arguments(node)
    mode, value = args.get("mode", "constant"), args["value"]
    if mode != "constant" or value not in (None, 0):
        raise UnsupportedError(f"{place(node)}: only padding with zeros is supported, got mode {mode!r}, value {value}")
    flat = [*args["pad"], *[0] * (2 * ndim)][: 2 * ndim]
    before, after = tuple(flat[0::2][::-1]), tuple(flat[1::2][::-1])
    if before[0] or after[0] or min(flat) < 0:
        raise UnsupportedError(f"{place(node)}: pads {args['pad']} crop or touch the batch; slice instead")
    return before[1:], after[1:]


def slice_range(node: Node, ndim: int) -> tuple[int, slice]:
    """Axis (counting the batch, 0 for a slice that keeps all of the batch) and slice of an aten.slice node."""
    args = arguments(node)
    axis = args["dim"] % ndim
    start, end, step = args["start"] or 0, args["end"], args["step"]
    if axis == 0:
        if start != 0 or step != 1 or (isinstance(end, int) and end < 1 << 31):
            raise UnsupportedError(f"{place(node)}: the batch cannot be sliced")
        return 0, slice(None)
    if not all(isinstance(n, int) for n in (start, 0 if end is None else end, step)):
        raise UnsupportedError(f"{place(node)}: its limits depend on the batch or on the data")
    return axis, slice(start, end, step)


def clamp_limits(node: Node) -> tuple[float, float]:
    """(low, high) of a relu, relu6, hardtanh or clamp node; infinite where there is none."""
    name = node.target._schema.name.removeprefix("aten::").removesuffix("_")  # type: ignore[union-attr]
    if name == "relu":
        return 0.0, np.inf
    if name == "relu6":
        return 0.0, 6.0
    args = arguments(node)
    low, high = args.get("min", args.get("min_val")), args.get("max", args.get("max_val"))
    if isinstance(low, Node) or isinstance(high, Node):
        raise UnsupportedError(f"{place(node)}: its limits must be constant numbers")
    return (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))
