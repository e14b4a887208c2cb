"""Batch norm and activation ranges over all processes, so that a network trains as it would on the whole batch in one.

PyTorch's SyncBatchNorm refuses tensors on a CPU; this one runs on every device that torch.distributed has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tritkit.activations import quantizers
from tritkit.observers import Percentile, sample_step


def synchronise_(net: nn.Module) -> None:
    """Batch norms in training take mean and variance over the batches of all processes, and activation quantizers
    their percentiles, in place. Each process must give the same number of images. `separate_` undoes it.
    """
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.forward = partial(_batch_norm, module)  # type: ignore[method-assign]
    for _, quantizer in quantizers(net):
        if type(quantizer.observer) is Percentile:
            quantizer.observer = GlobalPercentile(quantizer.observer.percent)


def separate_(net: nn.Module) -> None:
    """Each process for itself again."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.__dict__.pop("forward", None)
    for _, quantizer in quantizers(net):
        if isinstance(quantizer.observer, GlobalPercentile):
            quantizer.observer = Percentile(quantizer.observer.percent)


@dataclass(frozen=True)
class GlobalPercentile(Percentile):
    """`Percentile` over the batches of all processes: of the very values that one process would look at."""

    def batch_range(self, x: Tensor) -> tuple[float, float]:
        return super().batch_range(_global_sample(x.reshape(-1)))


def _global_sample(mine: Tensor) -> Tensor:
    """Every `step`-th of the values [n] of all processes in their order."""
    rank, world, count = dist.get_rank(), dist.get_world_size(), mine.numel()
    step = sample_step(count * world)
    firsts = [-r * count % step for r in range(world)]  # in the values of process r
    sizes = [len(range(first, count, step)) for first in firsts]
    picked = mine[firsts[rank] :: step]
    padded = F.pad(picked, (0, max(sizes) - len(picked)))
    found = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(found, padded)
    return torch.cat([values[:size] for values, size in zip(found, sizes, strict=True)])


def _batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """`norm.forward`, with the batch statistics of all processes in training."""
    if not norm.training:
        return type(norm).forward(norm, x)
    mean, variance, count = _statistics(x.detach())
    _follow_(norm, mean, variance * (count / max(count - 1, 1)))
    y: Tensor = _Normalise.apply(x, norm.weight, norm.bias, mean, variance, norm.eps, count)  # type: ignore[no-untyped-call]
    return y


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and (biased) variance of each channel over all processes, float32 [C], and how many values are behind."""
    variance, mean = torch.var_mean(x.float(), dim=_others(x), correction=0)
    count = x.numel() // x.shape[1]
    mine = torch.stack([mean, variance])
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    means, variances = torch.stack(found).unbind(1)  # equal counts: see synchronise_
    together = means.mean(0)
    return together, variances.mean(0) + (means - together).square().mean(0), count * len(found)


@torch.no_grad()
def _follow_(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """The running statistics, as PyTorch's batch norm keeps them."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)


class _Normalise(torch.autograd.Function):
    """γ · (x − mean) / √(variance + ε) + β for x [N, C, ...], where mean and variance are of all processes' x.

    dx = γ/√(variance + ε) · (dy − Σdy/n − x̂ · Σ(dy·x̂)/n) with sums over all processes, dγ = Σ dy·x̂ and dβ = Σ dy over
    this one's: those of parameters are added up by DistributedDataParallel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, count: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.count = count
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        dy = grads[0].float()
        normal = (x.float() - mean.view(shape)) * inverse.view(shape)
        mine = torch.stack([dy.sum(_others(x)), (dy * normal).sum(_others(x))])
        total = mine.clone()
        dist.all_reduce(total)
        centre, slope = (value.view(shape) for value in total / ctx.count)
        dx = (dy - centre - normal * slope) * (weight.float() * inverse).view(shape)
        return dx.to(x.dtype), mine[1].to(weight.dtype), mine[0].to(weight.dtype), None, None, None, None


def _others(x: Tensor) -> list[int]:
    """All dimensions but the channels'."""
    return [k for k in range(x.dim()) if k != 1]
