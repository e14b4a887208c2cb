"""Pictures of an image folder in batches, decoded by worker processes.

What happens to a picture is a function of (seed, epoch, its place in the folder): neither the number of workers nor of
training processes changes a pixel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tritkit.data.crops import CentreCrop, Crop, RandomCrop
from tritkit.data.image_folder import ImageFolder
from tritkit.data.pictures import BadPicture, read_picture
from tritkit.errors import TritkitError, UserError

_MOST_WORKERS = 16
_TRIES = 100  # pictures in a row that may be unreadable
_OVERSAMPLED = 2  # a JPEG decoded smaller keeps at least this many pixels for one of the crop's, a side


class PictureBatch(NamedTuple):
    """images uint8 [N, 3, size, size], labels int64 [N], and why pictures were left out."""

    images: Tensor
    labels: Tensor
    bad: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PictureLoader:
    """Reads pictures of `folder` through `crop`.

    replace: a picture that cannot be read gives its place to the next one in the folder, so that batches keep their
        size; without, it is left out. Either way `PictureBatch.bad` says so.
    workers: processes that decode; 0 decodes in this one.
    """

    folder: ImageFolder
    crop: Crop
    seed: int
    workers: int
    replace: bool

    def batches(self, order: Iterable[Sequence[int]], epoch: int = 0) -> Iterator[PictureBatch]:
        """A batch for each sequence of places in the folder. `epoch` decides the random part of the crops.

        UserError if not one picture of a batch can be read; TritkitError if a worker ends.
        """
        loader: DataLoader[Any] = DataLoader(
            _Pictures(self, epoch),
            batch_sampler=order,  # type: ignore[arg-type]  # any iterable of lists will do
            num_workers=self.workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # a loader draws a number when it starts: not from the training's state
        )
        try:
            for batch in loader:
                if not len(batch.labels):
                    raise UserError(f"no picture of a batch can be read: {batch.bad[0]}")
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            hint = "fewer of them (--workers) need less memory"
            raise TritkitError(f"a process that decodes pictures ended ({error}); {hint}") from error

    def random(self, epoch: int, index: int) -> np.random.Generator:
        """The generator of one picture's crop."""
        return np.random.default_rng((self.seed, epoch, index))


def default_workers(processes: int = 1) -> int:
    """Worker processes for each of `processes` training processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // processes, 1), _MOST_WORKERS)


class _Item(NamedTuple):
    pixels: Tensor | None  # uint8 [3, size, size]
    label: int
    bad: tuple[str, ...]


class _Pictures(Dataset[_Item]):
    def __init__(self, loader: PictureLoader, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch

    def __getitem__(self, index: int) -> _Item:
        folder = self.loader.folder
        bad: list[str] = []
        for k in range(_TRIES if self.loader.replace else 1):
            place = (index + k) % len(folder)
            try:
                return _Item(self._pixels(place), int(folder.labels[place]), tuple(bad))
            except BadPicture as error:
                bad.append(str(error))
        return _Item(None, 0, tuple(bad))

    def _pixels(self, index: int) -> Tensor:
        crop = self.loader.crop
        enough = _OVERSAMPLED * crop.short_side if isinstance(crop, CentreCrop | RandomCrop) else None
        image = crop(read_picture(self.loader.folder.path(index), enough), self.loader.random(self.epoch, index))
        return torch.from_numpy(np.stack([np.asarray(plane) for plane in image.split()]))


def _collate(items: Sequence[_Item]) -> PictureBatch:
    good = [(item.pixels, item.label) for item in items if item.pixels is not None]
    bad = tuple(reason for item in items for reason in item.bad)
    pixels = torch.stack([pixels for pixels, _ in good]) if good else torch.empty((0, 3, 1, 1), dtype=torch.uint8)
    labels = torch.tensor([label for _, label in good], dtype=torch.int64)
    return PictureBatch(pixels, labels, bad)
