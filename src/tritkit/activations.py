"""8-bit activations: `FakeQuantize` simulates a range that an observer chose, `quantize_activations` places it.

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
from typing import Any

import torch
from torch import Tensor, nn

from tritkit.errors import UnsupportedError, UserError
from tritkit.graphs import module_kind, quantization_points
from tritkit.observers import LEVELS, Observer, Percentile, Range, quant_params
from tritkit.processes import ALONE, Processes

QUANTIZERS = "activation_quantizers"  # the module of a traced network that holds them all, by place


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


class _StraightThrough(torch.autograd.Function):
    """`torch.fake_quantize_per_tensor_affine` on a CPU: the same bits by vectorized passes, and no mask to keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero_point: int) -> Tensor:
        ctx.save_for_backward(x)
        lowest, highest = -zero_point, LEVELS - zero_point
        ctx.ends = (lowest - 0.5) * scale, (highest + 0.5) * scale
        return x.mul(1 / scale).round_().clamp_(lowest, highest).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], x, *ctx.ends), None, None  # zero outside the ends


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
        # both round x·(1/scale), which training cannot tell apart
        if x.device.type == "cpu":
            y: Tensor = _StraightThrough.apply(x.float(), float(self.scale), int(self.zero_point))  # type: ignore[no-untyped-call]
        else:
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
            new = graph.call_module(f"{QUANTIZERS}.{name}", (node,))
        for user in [user for user in node.users if user is not new]:
            user.replace_input_with(node, new)
    root = _shell(net)
    root.add_module(QUANTIZERS, quantizers)
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
