"""How often a network is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from tritkit.data import ImageSet, normalise
from tritkit.errors import UserError


def evaluate(
    net: nn.Module, images: ImageSet, mean: Sequence[float], std: Sequence[float], batch_size: int = 500
) -> float:
    """The share of `images`, in 0..1, whose largest logit is not their label. Float32, evaluation
    mode, no augmentation.

    Each module is left in the mode it was in. Raises UserError for an empty set.
    """
    if not len(images):
        raise UserError("there are no images to evaluate on")
    wrong = 0
    with evaluation(net), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = normalise(images.images[start : start + batch_size], mean, std)
            guess = net(batch.contiguous(memory_format=torch.channels_last)).argmax(1)
            wrong += int((guess != images.labels[start : start + batch_size]).sum())
    return wrong / len(images)


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
