"""`ImageSet`: images and labels in memory, the one form every loader gives and the training loop takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tritkit.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """`images` [N, 3, H, W] uint8 in 0..255, `labels` [N] int64 in 0..len(classes)−1, `classes` their names."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise UserError(f"images must be uint8 [N, 3, H, W]; got {_form(self.images)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(f"labels must be int64 [{len(self.images)}]; got {_form(self.labels)}")
        top = len(self.classes)
        if len(self.labels) and not bool(((self.labels >= 0) & (self.labels < top)).all()):
            raise UserError(f"labels must lie in 0..{top - 1}; got {int(self.labels.min())}..{int(self.labels.max())}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> ImageSet:
        """The images at `index` (int64 [M]), in that order."""
        return ImageSet(self.images[index], self.labels[index], self.classes)


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
