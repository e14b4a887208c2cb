"""Augmentation of a whole batch in a few tensor operations, from a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images / 255 − mean) / std a channel: uint8 [N, C, H, W] to float32, `mean` and `std` in units of full scale."""
    shape = (1, len(mean), 1, 1)
    subtracted, divided = (torch.tensor(values, device=images.device).view(shape) for values in (mean, std))
    return images.to(torch.float32, copy=True).div_(255).sub_(subtracted).div_(divided)  # in place: no fresh memory


def crop_and_flip(images: Tensor, generator: Generator, pad: int = 4) -> Tensor:
    """He et al. 2015, section 4.2: `pad` black pixels on each side, a random crop of the old size,
    a random mirror image.

    uint8 [N, C, H, W] to the same shape in channels-last memory. Each image draws two offsets in 0..2·pad and one coin.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)
    flip = torch.randint(0, 2, (n, 1), generator=generator, dtype=torch.bool)
    columns = torch.arange(width).expand(n, -1)
    rows = top + torch.arange(height)  # [N, H]
    columns = left + torch.where(flip, width - 1 - columns, columns)  # [N, W]
    image = torch.arange(n).view(n, 1, 1)
    return padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def cutmix(images: Tensor, labels: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al. 2019, equations 1 and 2, α = 1): into each image a rectangle of another one of the batch.

    images: [N, C, H, W] of any dtype; labels: int64 [N] in 0..classes-1. Returns the mixed images and float32
    [N, classes], each image's classes by their shares of its area. The whole batch has one rectangle, whose area before
    it is cut at the border is uniform in 0..H·W.
    """
    height, width = images.shape[2:]
    ratio, y, x = torch.rand(3, generator=generator).tolist()
    other = torch.randperm(len(images), generator=generator).to(images.device)
    top, bottom = _part(height, ratio, y)
    left, right = _part(width, ratio, x)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (height * width)
    answers = F.one_hot(labels, classes).float()
    return mixed, answers * (1 - share) + answers[other] * share


def _part(side: int, ratio: float, middle: float) -> tuple[int, int]:
    """√ratio of `side` around `middle` (0..1), cut at the border: the first pixel and the one behind the last."""
    length, centre = int(side * ratio**0.5), int(side * middle)
    return max(centre - length // 2, 0), min(centre - length // 2 + length, side)
