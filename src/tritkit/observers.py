"""Observers: what range of values 8-bit activations should cover, from data. `tritkit.activations` uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tritkit.errors import UserError
from tritkit.processes import Processes

LEVELS = 255
_SAMPLE = 1 << 16  # values of a batch that a percentile or an MSE search looks at
_MIN_SCALE = 1e-12


class QuantParams(NamedTuple):
    """Scale (float, > 0) and zero point (0..255) of one tensor."""

    scale: float
    zero_point: int


def quant_params(low: float, high: float) -> QuantParams:
    """The u8 quantization of the range [low, high], widened to hold zero.

    The scale is a float32 value. A range of one point (all zeros) gets scale 1/255, so that nothing divides by zero.
    """
    if not (low <= high and abs(low) < float("inf") and abs(high) < float("inf")):
        raise UserError(
            f"activation range [{low}, {high}] is not finite; are there NaN or infinite values in the data?"
        )
    low, high = min(low, 0.0), max(high, 0.0)
    width = high - low
    # float32 of the quotient, so that every engine starts from the same bits
    scale = float(torch.tensor(max(width if width > 0 else 1.0, _MIN_SCALE) / LEVELS, dtype=torch.float32))
    zero_point = min(max(round(-low / scale), 0), LEVELS)
    return QuantParams(scale, zero_point)


@dataclass(frozen=True)
class Observer:
    """Chooses a range from data. Stateless: `Range` holds what was seen."""

    def batch_range(self, x: Tensor) -> tuple[float, float]:
        """(low, high) that this batch of any shape asks for."""
        raise NotImplementedError

    def join(self, old: float, new: float, seen: int, pick: str) -> float:
        """One end of the range after `seen` earlier batches; `pick` is "low" or "high". Default: the mean."""
        return old + (new - old) / (seen + 1)


@dataclass(frozen=True)
class MinMax(Observer):
    """The extremes over all batches. Nothing is clipped; one outlier widens the range for good."""

    def batch_range(self, x: Tensor) -> tuple[float, float]:
        low, high = torch.aminmax(x)
        return float(low), float(high)

    def join(self, old: float, new: float, seen: int, pick: str) -> float:
        return min(old, new) if pick == "low" else max(old, new)


@dataclass(frozen=True)
class Percentile(Observer):
    """The central `percent` % of the values (on up to 65,536 of them a batch), averaged over batches."""

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise ValueError(f"percent must be in (50, 100], got {self.percent}")

    def batch_range(self, x: Tensor) -> tuple[float, float]:
        return _quantiles(_sample(x), (100 - self.percent) / 100)


@dataclass(frozen=True)
class MSE(Observer):
    """The shrunken min-max range with the least squared quantization error (on up to 65,536 values a batch)."""

    steps: int = 32
    smallest: float = 0.3

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.smallest <= 1:
            raise ValueError(f"need steps >= 1 and 0 < smallest <= 1, got {self.steps} and {self.smallest}")

    def batch_range(self, x: Tensor) -> tuple[float, float]:
        x = _sample(x)
        low, high = (float(v) for v in torch.aminmax(x))
        best, best_error = 1.0, float("inf")
        for i in range(self.steps):
            ratio = 1 - i * (1 - self.smallest) / self.steps
            params = quant_params(low * ratio, high * ratio)
            error = float((_simulate(x, params) - x).square().mean())
            if error < best_error:
                best, best_error = ratio, error
        return low * best, high * best


class Range:
    """What an observer has seen so far: `update` with batches, then `quant`."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.ends: list[tuple[float, float]] = []  # (low, high) of each batch

    def update(self, x: Tensor) -> None:
        """Take in one batch (float tensor of any shape, not empty)."""
        self.ends.append(self.observer.batch_range(x.detach().float()))

    def pool(self, processes: Processes) -> None:
        """Take in what the others' ranges have seen, as if one had seen all batches in their order."""
        self.ends = processes.gather(self.ends)

    @property
    def low(self) -> float:
        """The lower end of the range; 0 of nothing."""
        return self._joined([low for low, _ in self.ends], "low")

    @property
    def high(self) -> float:
        """The upper end."""
        return self._joined([high for _, high in self.ends], "high")

    def _joined(self, ends: list[float], pick: str) -> float:
        joined = ends[0] if ends else 0.0
        for seen, end in enumerate(ends[1:], 1):
            joined = self.observer.join(joined, end, seen, pick)
        return joined

    def quant(self) -> QuantParams:
        """Scale and zero point of the range seen."""
        if not self.ends:
            raise UserError("no data was observed; run calibrate with at least one batch")
        return quant_params(self.low, self.high)


def sample_step(count: int) -> int:
    """Of `count` values in a row, every how many a percentile or an MSE search looks at."""
    step = -(-count // _SAMPLE)
    return step | 1 if step > 1 else 1  # odd: does not fall in with the power-of-two strides of channels and rows


def _sample(x: Tensor) -> Tensor:
    flat = x.reshape(-1)
    return flat[:: sample_step(flat.numel())]


def _quantiles(values: Tensor, tail: float) -> tuple[float, float]:
    """`torch.quantile` of [tail, 1 − tail], the same bits, without sorting what lies between."""
    last = values.numel() - 1
    ranks = torch.tensor([tail, 1 - tail]) * last
    weights = ranks - ranks.long()
    (low_below, high_below), (low_above, high_above) = ranks.long().tolist(), ranks.ceil().long().tolist()
    count = max(low_above, last - high_below) + 1
    largest, smallest = (values.topk(count, largest=largest).values.cpu() for largest in (True, False))
    if largest[0].isnan():
        return float("nan"), float("nan")
    low = smallest[low_below].lerp(smallest[low_above], weights[0])
    high = largest[last - high_below].lerp(largest[last - high_above], weights[1])
    return float(low), float(high)


def _simulate(x: Tensor, params: QuantParams) -> Tensor:
    codes = torch.clamp(torch.round(x / params.scale) + params.zero_point, 0, LEVELS)
    return (codes - params.zero_point) * params.scale
