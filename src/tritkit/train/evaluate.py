"""How often a network is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tritkit.data import ImageSet, normalise
from tritkit.errors import UserError


@dataclass(frozen=True)
class Errors:
    """Of `images`, how many have a label that is not the first, or not among the first five, of the logits."""

    images: int
    wrong: int
    wrong_in_5: int

    @property
    def top1(self) -> float:
        """The error in 0..1."""
        return self.wrong / self.images

    @property
    def top5(self) -> float:
        """The error in 0..1 where five guesses count."""
        return self.wrong_in_5 / self.images


def evaluate(
    net: nn.Module, images: ImageSet, mean: Sequence[float], std: Sequence[float], batch_size: int = 500
) -> float:
    """The share of `images`, in 0..1, whose largest logit is not their label. Float32, evaluation
    mode, no augmentation.

    Each module is left in the mode it was in. Raises UserError for an empty set.
    """
    return count_errors(net, set_batches(images, mean, std, batch_size)).top1


def set_batches(
    images: ImageSet, mean: Sequence[float], std: Sequence[float], batch_size: int = 500
) -> Iterator[tuple[Tensor, Tensor]]:
    """(normalised images in channels-last memory, labels) of a whole set, in order."""
    for start in range(0, len(images), batch_size):
        batch = normalise(images.images[start : start + batch_size], mean, std)
        yield batch.contiguous(memory_format=torch.channels_last), images.labels[start : start + batch_size]


def count_errors(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], some: bool = True) -> Errors:
    """The errors of `net` over (images, labels). Evaluation mode; each module is left in the mode it was in.

    Raises UserError if there is no image; with `some` false the errors are of 0 images then.
    """
    with evaluation(net), torch.inference_mode():
        return add_errors((label_ranks(net(x).float().cpu().numpy(), y.cpu().numpy()) for x, y in batches), some)


def add_errors(ranks: Iterable[NDArray[np.int64]], some: bool = True) -> Errors:
    """The errors behind `label_ranks` of batches; `some` as in `count_errors`."""
    images = wrong = wrong_in_5 = 0
    for batch in ranks:
        images += len(batch)
        wrong += int((batch > 0).sum())
        wrong_in_5 += int((batch > 4).sum())
    if some and not images:
        raise UserError("there are no images to evaluate on")
    return Errors(images, wrong, wrong_in_5)


def label_ranks(logits: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes come before the label of each image: those with a larger logit, and those with the same one and
    a smaller index. logits [N, K], labels [N] in 0..K−1; NaN comes before everything.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    before: NDArray[np.int64] = (~(logits <= own) | ((logits == own) & earlier)).sum(axis=1)
    return before


@contextmanager
def evaluation(net: nn.Module) -> Iterator[None]:
    """`net` in evaluation mode; afterwards each module is in the mode it was in."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
