"""8-bit activations: observers choose a range, `FakeQuantize` simulates it, `quantize_activations` places it.

A quantized activation is u8 with one scale and one zero point a tensor (docs/format.md):

    q = clip(rint(x / scale) + zero_point, 0, 255)          x' = scale · (q − zero_point)

Zero is always a code, so padding is exact; where no value is negative (after a ReLU) the zero point is 0.
Gradients pass straight through inside the range and are zero outside it.

    net = tritkit.quantize_activations(net)     # a traced copy that shares the parameters of net
    tritkit.calibrate(net, batches)             # a few hundred images, no labels
    ...train with the quantizers in the loop; ranges follow slowly...
    tritkit.freeze_(net)                        # ranges stay as they are from here on
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tritkit.errors import UnsupportedError, UserError
from tritkit.graphs import module_kind, quantization_points
from tritkit.processes import ALONE, Processes

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


# ---- observers: what range does one batch ask for, and how are batches joined -------------------------------


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
        tail = (100 - self.percent) / 100
        ends = torch.tensor([tail, 1 - tail], dtype=torch.float32, device=x.device)
        low, high = torch.quantile(_sample(x), ends).tolist()
        return low, high


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


def _simulate(x: Tensor, params: QuantParams) -> Tensor:
    codes = torch.clamp(torch.round(x / params.scale) + params.zero_point, 0, LEVELS)
    return (codes - params.zero_point) * params.scale


# ---- the quantizer -------------------------------------------------------------------------------------------


@torch.library.custom_op("tritkit::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """scale · (clip(rint(x / scale) + zero_point, 0, 255) − zero_point) in float32; the marker that export reads.

    x float of any shape; scale float32 and zero_point int32, both without dimensions.
    """
    codes = torch.clamp(torch.round(x.float() / scale) + zero_point, 0, LEVELS)
    return ((codes - zero_point) * scale).to(x.dtype)


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x)


class FakeQuantize(nn.Module):
    """Simulates an 8-bit tensor: identity until it has a range, then x' of this module's formula.

    Buffers: scale (float32, 0-dim), zero_point (int32, 0-dim), bounds (low, high), state (ready, frozen). In training,
    while not frozen, the range follows the observer's by an exponential average with weight `momentum` a batch.
    """

    scale: Tensor
    zero_point: Tensor
    bounds: Tensor
    state: Tensor

    def __init__(self, observer: Observer | None = None, momentum: float = 0.01) -> None:
        super().__init__()
        self.observer = observer or Percentile()
        self.momentum = momentum
        self.seen: Range | None = None  # set while calibrating
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("bounds", torch.zeros(2))  # (low, high)
        self.register_buffer("state", torch.zeros(2, dtype=torch.bool))  # (ready, frozen), for the state dict
        # plain copies of `state`: tracers can branch on them
        self.ready = self.frozen = False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.ready, self.frozen = (bool(flag) for flag in self.state)

    def set_range(self, low: float, high: float) -> None:
        """Quantize [low, high] from now on."""
        params = quant_params(low, high)
        self.bounds.copy_(torch.tensor([low, high]))
        self.scale.fill_(params.scale)
        self.zero_point.fill_(params.zero_point)
        self.ready = True
        self.state[0] = True

    def freeze(self, frozen: bool = True) -> None:
        """Keep the range in training, or let it follow the data again."""
        self.frozen = frozen
        self.state[1] = frozen

    def forward(self, x: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen.update(x)
            return x
        if not self.ready:
            return x
        if not self.training:
            quantized: Tensor = fake_quantize(x, self.scale, self.zero_point)
            return quantized
        if not self.frozen:
            low, high = self.observer.batch_range(x.detach().float())
            old_low, old_high = self.bounds.tolist()
            self.set_range(old_low + self.momentum * (low - old_low), old_high + self.momentum * (high - old_high))
        # the fused kernel with the straight-through gradient; it rounds x·(1/scale), which training cannot tell apart
        y = torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, 0, LEVELS)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        if not self.ready:
            return "no range yet"
        return f"scale={float(self.scale):.6g}, zero_point={int(self.zero_point)}, frozen={self.frozen}"


# ---- whole networks ------------------------------------------------------------------------------------------


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False  # from torch.nn too, but what matters is inside
        return isinstance(m, FakeQuantize) or type(m).__module__.startswith("torch.nn")


def quantize_activations(net: nn.Module, observer: Observer | None = None) -> torch.fx.GraphModule:
    """A traced copy of `net` with a `FakeQuantize` wherever the integer network has a u8 tensor.

    The copy shares parameters, buffers and submodules with `net` (names in the state dict stay; quantizers are added
    as `activation_quantizers.<place>`), trains like it, and does nothing new until `calibrate` gave it ranges.
    Observer: default `Percentile(99.99)`.

    Raises UnsupportedError where the network cannot be traced symbolically (its control flow depends on data); such a
    network can still be exported with `tritkit.export(..., calibration=batches)`, which places and calibrates
    quantizers by itself.
    """
    if any(isinstance(m, FakeQuantize) for m in net.modules()):
        raise UserError("the activations of this network are quantized already; call calibrate on it instead")
    try:
        graph = _Tracer().trace(net)
    except Exception as e:  # torch.fx raises many types for code it cannot follow
        raise UnsupportedError(
            f"{type(net).__name__} cannot be traced symbolically ({e}); "
            "use tritkit.export(..., calibration=batches) for it, which needs no tracing of this kind"
        ) from e
    modules = dict(net.named_modules())
    points = quantization_points(graph, lambda node: module_kind(node, modules))
    quantizers = nn.ModuleDict()
    for node in points:
        name = node.name
        quantizers[name] = FakeQuantize(observer)
        with graph.inserting_after(node):
            new = graph.call_module(f"activation_quantizers.{name}", (node,))
        for user in [user for user in node.users if user is not new]:
            user.replace_input_with(node, new)
    root = _shell(net)
    root.add_module("activation_quantizers", quantizers)
    traced = torch.fx.GraphModule(root, graph, type(net).__name__)
    for name, child in root.named_children():
        traced.add_module(name, child)  # all of it: the graph module takes only what the graph calls
    traced.train(net.training)
    return traced


def _shell(net: nn.Module) -> nn.Module:
    """A bare module that holds the very parameters, buffers and children of `net`."""
    shell = nn.Module()
    for name, parameter in net.named_parameters(recurse=False):
        shell.register_parameter(name, parameter)
    for name, buffer in net.named_buffers(recurse=False):
        shell.register_buffer(name, buffer)
    for name, child in net.named_children():
        shell.add_module(name, child)
    return shell


def quantizers(net: nn.Module) -> Iterator[tuple[str, FakeQuantize]]:
    """(name, quantizer) of every activation quantizer of a network."""
    for name, module in net.named_modules():
        if isinstance(module, FakeQuantize):
            yield name, module


def calibrate(net: nn.Module, batches: Iterable[Tensor], processes: Processes = ALONE) -> None:
    """Set every activation range from data: float batches shaped as the network wants them, no labels.

    Runs the network in evaluation mode without quantization, so all ranges are those of the float activations.
    Batches may also be (images, labels) pairs. processes: those that calibrate the same network on other batches; all
    end with the ranges that one would have from all batches. Raises UserError when there is nothing to calibrate, no
    batch, or NaN in a batch.
    """
    found = [q for _, q in quantizers(net)]
    if not found:
        raise UserError("nothing to calibrate: call net = tritkit.quantize_activations(net) first")
    was_training = net.training
    net.eval()
    try:
        for q in found:
            q.seen = Range(q.observer)
        with torch.no_grad():
            for i, batch in enumerate(batches):
                net(_checked(batch, i))
        ranges = [q.seen for q in found if q.seen is not None]
    finally:
        for q in found:
            q.seen = None
        net.train(was_training)
    if not ranges[0].ends:
        raise UserError("calibrate was given no batch; give it a few hundred images")
    for q, seen in zip(found, ranges, strict=True):
        seen.pool(processes)
        q.set_range(seen.low, seen.high)


def _checked(batch: Tensor | tuple[Tensor, ...] | list[Tensor], index: int) -> Tensor:
    images = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"calibration batch {index} is {given}; give float tensors, normalised as in training")
    if images.numel() == 0:
        raise UserError(f"calibration batch {index} is empty (shape {tuple(images.shape)})")
    if not torch.isfinite(images).all():
        raise UserError(
            f"calibration batch {index} has NaN or infinite values; check the images and their normalisation"
        )
    return images


def freeze_(net: nn.Module, frozen: bool = True) -> None:
    """Keep all activation ranges as they are during further training (or, with False, let them follow again)."""
    found = [q for _, q in quantizers(net)]
    if not found:
        raise UserError("no activation quantizers to freeze: call tritkit.quantize_activations and calibrate first")
    for q in found:
        q.freeze(frozen)
