"""What a layer's inputs and wanted outputs say about its weight: means and second moments, all that the steps need.

A convolution is a linear map of patches x (K = kh·kw·I values) to O outputs. With the shift of each output free, the
squared error of a weight w [O, K] against wanted outputs t is, up to a constant,

    w·H·wᵀ − 2·w·Cᵀ        H = mean (x − x̄)(x − x̄)ᵀ,   C = mean (t − t̄)(x − x̄)ᵀ
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tritkit.post.layers import Layer
from tritkit.processes import Processes

__all__ = ["Moments", "Share", "as_columns", "as_weight", "columns_of", "moments_of", "patches_of"]

_ROWS = 1 << 17  # patches that are looked at: many times K, where there are that many
_CHUNK = 32  # images


@dataclass(frozen=True)
class Share:
    """Of `count` images those from number `first` on are here, the others in `processes`."""

    processes: Processes
    first: int
    count: int

    @staticmethod
    def of(images: Tensor, processes: Processes) -> Share:
        """Where each process has some."""
        counts = processes.gather([len(images)])
        return Share(processes, sum(counts[: processes.rank]), sum(counts))


@dataclass(frozen=True, eq=False)
class Moments:
    """float64, over `count` patches. x_mean [K], h [K, K], t_mean [O], t_var [O], c [O, K].

    Columns are ordered (ky, kx, input channel): see `as_columns`.
    """

    count: int
    x_mean: Tensor
    h: Tensor
    t_mean: Tensor
    t_var: Tensor
    c: Tensor

    def error(self, w: Tensor) -> Tensor:
        """Mean squared error of each output [O] with the best shift, for weights w [O, K]."""
        return self.t_var + ((w @ self.h - 2 * self.c) * w).sum(dim=1)

    def variance(self, w: Tensor) -> Tensor:
        """Of each output [O] of weights w [O, K]."""
        return ((w @ self.h) * w).sum(dim=1).clamp(min=0)


def as_columns(weight: Tensor) -> Tensor:
    """[O, I, kh, kw] or [O, I] as [O, K], columns ordered (ky, kx, input channel)."""
    return weight.flatten(1) if weight.dim() == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def as_weight(columns: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `as_columns` for a weight of `shape`."""
    if len(shape) == 2:
        return columns.reshape(shape)
    outputs, channels, height, width = shape
    return columns.reshape(outputs, height, width, channels).permute(0, 3, 1, 2).contiguous()


def moments_of(layer: Layer, x: Tensor, target: Tensor, share: Share) -> Moments:
    """Of the layer's inputs x and what it should give behind its batch norm, over the calibration images of all
    processes; x and target are of this one's share.

    Where a convolution sees more than 131,072 patches, some positions of each image are taken, drawn from a fixed seed.
    """
    outputs, size = layer.module.weight.shape[0], layer.module.weight[0].numel()
    xs, ts, tts = (torch.zeros(n, dtype=torch.float64) for n in (size, outputs, outputs))
    xxs, txs = (torch.zeros(n, size, dtype=torch.float64) for n in (size, outputs))
    count = 0
    for patches, wanted in _chunks(layer, x, target, share):
        count += len(patches)
        xs += patches.sum(dim=0, dtype=torch.float64)
        ts += wanted.sum(dim=0, dtype=torch.float64)
        tts += wanted.double().square().sum(dim=0)
        xxs += (patches.T @ patches).double()
        txs += (wanted.T @ patches).double()
    xs, ts, tts, xxs, txs, seen = _totals([xs, ts, tts, xxs, txs, torch.tensor([float(count)])], share.processes)
    count = int(seen)
    x_mean, t_mean = xs / count, ts / count
    h = xxs / count - torch.outer(x_mean, x_mean)
    c = txs / count - torch.outer(t_mean, x_mean)
    return Moments(count, x_mean, h, t_mean, (tts / count - t_mean.square()).clamp(min=0), c)


def _totals(mine: list[Tensor], processes: Processes) -> list[Tensor]:
    """The sum of each tensor over all processes, float64."""
    total = processes.total(torch.cat([value.double().flatten() for value in mine]))
    parts = torch.split(total, [prod(value.shape) for value in mine])
    return [part.reshape(value.shape) for part, value in zip(parts, mine, strict=True)]


def _chunks(layer: Layer, x: Tensor, target: Tensor, share: Share) -> Iterator[tuple[Tensor, Tensor]]:
    """Patches [n, K] and what is wanted there [n, O], some images at a time. Which positions of an image are taken
    follows from its number among all images.
    """
    if isinstance(layer.module, nn.Linear):
        yield _flat(x), _flat(target)
        return
    positions = target.shape[2] * target.shape[3]
    wanted = max(1, -(-_ROWS // share.count))
    draw = torch.Generator().manual_seed(0)
    if wanted < positions:
        for _ in range(share.first // _CHUNK):  # those of the images before
            torch.randperm(positions, generator=draw)
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        taken = torch.randperm(positions, generator=draw)[:wanted] if wanted < positions else slice(None)
        pair = (patches_of(layer.module, x[part]), columns_of(layer.module, target[part]))
        patches, goal = (rows[:, :, taken].transpose(1, 2).flatten(0, 1) for rows in pair)
        yield patches, goal


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def columns_of(module: nn.Module, values: Tensor) -> Tensor:
    """The inputs of a linear layer, or the outputs of any layer, as [n, channels, positions]."""
    if isinstance(module, nn.Linear):
        return values.reshape(len(values), -1, values.shape[-1]).transpose(1, 2)
    return values.flatten(2)


def patches_of(module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """The inputs x of a layer as [n, K, positions], K ordered (ky, kx, input channel)."""
    return columns_of(module, x) if isinstance(module, nn.Linear) else _patches(module, x)


def _patches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    height, width = conv.kernel_size
    if isinstance(conv.padding, str):
        same = conv.padding == "same"
        pads = [d * (k - 1) if same else 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        x, padding = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2)), (0, 0)
    else:
        padding = (conv.padding[0], conv.padding[1])
    unfolded = F.unfold(x, (height, width), conv.dilation, padding, conv.stride)
    split = unfolded.reshape(len(x), x.shape[1], height * width, -1)
    return split.transpose(1, 2).reshape(unfolded.shape)
