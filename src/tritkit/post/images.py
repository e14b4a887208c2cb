"""Calibration images: as many as wanted from a loader, checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tritkit.errors import UserError

__all__ = ["check_fit", "collect"]

FEWEST = 16
_HINT = "give a few hundred training images, normalised as in training, without labels"


def collect(loader: Iterable[Any], limit: int) -> Tensor:
    """The first `limit` images of `loader` as one float32 tensor [n, ...].

    loader: batches [n, ...] of floats, or tuples or lists that begin with one; or one tensor, a batch itself.
    Raises UserError for too few images (fewer than 16), other types, NaN, shapes that differ, and images that are all
    alike.
    """
    if limit < FEWEST:
        raise UserError(f"{limit} calibration images are too few; {_HINT}")
    found: list[Tensor] = []
    for index, batch in enumerate([loader] if isinstance(loader, Tensor) else loader):
        found.append(_checked(batch, index, found))
        if sum(map(len, found)) >= limit:
            break
    count = min(sum(map(len, found)), limit)
    if count < FEWEST:
        raise UserError(f"calibration has {count} images, at least {FEWEST} are needed; {_HINT}")
    images = torch.cat(found)[:limit]
    if bool((images == images[:1]).all()):
        raise UserError(f"all {count} calibration images are the same: they say nothing about the layers; {_HINT}")
    if bool((images.flatten(1) == images.flatten(1)[:, :1]).all()):
        raise UserError(f"each of the {count} calibration images is one constant value; {_HINT}")
    return images


def _checked(batch: Any, index: int, before: list[Tensor]) -> Tensor:
    images = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"calibration batch {index} is {given}; {_HINT} (float tensors [N, ...])")
    if images.dim() < 2:
        raise UserError(f"calibration batch {index} has shape {list(images.shape)}; a batch is [N, ...]")
    if before and images.shape[1:] != before[0].shape[1:]:
        shapes = f"{list(before[0].shape[1:])} and {list(images.shape[1:])}"
        raise UserError(f"calibration images have different shapes, {shapes} in batch {index}; give one size")
    if not bool(torch.isfinite(images).all()):
        raise UserError(f"calibration batch {index} has NaN or infinite values; check how images are normalised")
    return images.detach().float()


@torch.no_grad()
def check_fit(net: nn.Module, images: Tensor) -> None:
    """UserError where the network (in evaluation mode) cannot take these images or gives NaN for them."""
    try:
        result = net(images[:2])
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        given = ["N", *images.shape[1:]]
        raise UserError(f"the network cannot take calibration images of shape {given}: {reason}") from error
    if isinstance(result, Tensor) and not bool(torch.isfinite(result).all()):
        raise UserError("the network gives NaN or infinite values for the calibration images; check its weights")
