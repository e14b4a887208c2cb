"""The images of a run, from memory or from a folder of pictures, as the loop takes them: to each process its share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tritkit.data import (
    CentreCrop,
    ImageFolder,
    ImageSet,
    PictureLoader,
    RandomCrop,
    RandomResizedCrop,
    crop_and_flip,
    cutmix,
    load_cifar10,
    load_image_folder,
    normalise,
)
from tritkit.data.crops import Crop
from tritkit.data.image_folder import BadPictures, bad_pictures
from tritkit.data.loading import default_workers
from tritkit.errors import UserError
from tritkit.processes import Processes
from tritkit.train.evaluate import set_batches
from tritkit.train.ranks import Ranks
from tritkit.train.recipe import Recipe

Batch = tuple[Tensor, Tensor]
"""Normalised images [N, 3, H, W] and labels, int64 [N] or float32 [N, K], on the device of the run."""
Shared = tuple[Iterator[Tensor], Processes]
"""Batches of images for this process, and the processes that have the others: none where each has all."""
_SPLIT_SEED = 0  # held-out images are the same in every run, whatever its seed
_CALIBRATION_BATCH = {"cifar10": 256, "imagenet": 64}
_EVALUATION_BATCH = 100  # pictures
_S = TypeVar("_S", ImageSet, ImageFolder)


class EvaluationImages(Protocol):
    """Images to count errors on."""

    @property
    def trained_on(self) -> bool:
        """Whether they are the training images, so that errors say nothing about others."""

    def __len__(self) -> int:
        """Of all processes together."""

    def batches(self) -> Iterator[Batch]:
        """This process's share, not augmented; it may be empty."""


class TrainingImages(Protocol):
    """Images to learn from."""

    held_out: EvaluationImages
    generator: torch.Generator | None  # of the augmentation, where it has a state that checkpoints must keep

    def __len__(self) -> int:
        """Without those held out."""

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of `epoch` (0 is the first) from number `first` on, augmented; of each, this process's share."""

    def plain(self, count: int, unit: int = 1) -> Shared:
        """This process's share of `count` images or fewer, not augmented, all batches of one size. Each share but the
        last has a multiple of `unit` images, where that is a multiple of the batches'.
        """

    def augmented(self, count: int) -> Shared:
        """This process's share of `count` images or fewer as training sees them, in its batches. The borders that
        cropping adds change what batch norm measures: statistics of plain images double the error.
        """

    def skipped(self) -> list[str]:
        """Why pictures were left out since the last call."""


def load_images(
    recipe: Recipe, root: str | Path | None, ranks: Ranks, workers: int | None, bad: BadPictures
) -> tuple[TrainingImages, EvaluationImages, tuple[str, ...]]:
    """The recipe's data set at `root`: training images, test images, the classes' names."""
    if recipe.dataset == "cifar10":
        images, test = load_cifar10(root, "train"), load_cifar10(root, "test")
        return MemoryImages(images, recipe, ranks), MemoryEvaluation(test, recipe, ranks), images.classes
    folder, val = load_image_folder(root, "train", bad), load_image_folder(root, "val", bad)
    outputs = recipe.classes or 1000
    for found in (folder, val):
        if len(found.classes) != outputs or found.classes != folder.classes:
            raise UserError(
                f"{found.root} has {len(found.classes)} classes, the network {outputs} outputs, one for each folder of"
                f" {folder.root}; set classes, or complete the folders"
            )
    reading = _Reading(recipe, ranks, bad, default_workers(ranks.here) if workers is None else workers)
    same = val.root == folder.root
    if ranks.first and not same:
        reading.reasons.extend(val.skipped)
    return FolderImages(folder, reading), FolderEvaluation(val, reading, same), folder.classes


class MemoryImages:
    """An `ImageSet`, augmented by He et al.'s crop; all processes draw the same numbers."""

    def __init__(self, images: ImageSet, recipe: Recipe, ranks: Ranks) -> None:
        self.recipe, self.ranks = recipe, ranks
        self.images, held_out = split(images, recipe.held_out)
        self.held_out: EvaluationImages = MemoryEvaluation(held_out, recipe, ranks)
        self.generator: torch.Generator | None = torch.Generator().manual_seed(recipe.seed)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        assert self.generator is not None
        for index in _order(len(self), self.recipe, epoch)[first:]:
            pixels = crop_and_flip(self.images.images[index], self.generator)
            yield self._normal(self.ranks.share(pixels)), self.ranks.share(self.images.labels[index]).to(self._device)

    def plain(self, count: int, unit: int = 1) -> Shared:
        parts = _equal_parts(range(min(count, len(self))), _CALIBRATION_BATCH["cifar10"])
        mine, processes = _split(self.ranks, parts, unit)
        pixels = (self.images.images[part.start : part.stop] for part in mine)
        return map(self._channels_last, pixels), processes

    def augmented(self, count: int) -> Shared:
        size = self.recipe.batch_size
        starts = range(0, min(count, len(self)) - size + 1, size)
        mine, processes = self.ranks.split(len(starts))
        generator = torch.Generator().manual_seed(self.recipe.seed)
        whole = (crop_and_flip(self.images.images[start : start + size], generator) for start in starts)
        return map(self._channels_last, islice(whole, mine.start, mine.stop)), processes  # the others' are drawn too

    def skipped(self) -> list[str]:
        return []

    def _channels_last(self, pixels: Tensor) -> Tensor:
        return self._normal(pixels).contiguous(memory_format=torch.channels_last)

    def _normal(self, pixels: Tensor) -> Tensor:
        return normalise(pixels.to(self._device), self.recipe.mean, self.recipe.std)

    @property
    def _device(self) -> torch.device:
        return self.ranks.device


@dataclass(frozen=True, eq=False)
class MemoryEvaluation:
    """An `ImageSet` as it is."""

    images: ImageSet
    recipe: Recipe
    ranks: Ranks
    trained_on: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def batches(self) -> Iterator[Batch]:
        mine = self.images
        if self.ranks.world > 1:
            mine = mine.subset(torch.arange(self.ranks.rank, len(mine), self.ranks.world))
        for images, labels in set_batches(mine, self.recipe.mean, self.recipe.std):
            yield images.to(self.ranks.device), labels.to(self.ranks.device)


@dataclass(frozen=True, eq=False)
class _Reading:
    """How pictures become batches."""

    recipe: Recipe
    ranks: Ranks
    bad: BadPictures
    workers: int
    reasons: list[str] = field(default_factory=list)  # of pictures left out since somebody asked

    def batches(
        self, folder: ImageFolder, crop: Crop, order: Iterable[list[int]], epoch: int = 0, replace: bool = False
    ) -> Iterator[Batch]:
        loader = PictureLoader(folder, crop, self.recipe.seed, self.workers, replace)
        for batch in loader.batches(order, epoch):
            if batch.bad and self.bad == "refuse":
                raise UserError(f"{folder.root} has {bad_pictures(batch.bad)}")
            self.reasons.extend(batch.bad)
            images, labels = batch.images.to(self.ranks.device), batch.labels.to(self.ranks.device)
            normal = normalise(images, self.recipe.mean, self.recipe.std)
            yield normal.contiguous(memory_format=torch.channels_last), labels

    @property
    def middle(self) -> CentreCrop:
        return CentreCrop(*crop_sizes(self.recipe))

    @property
    def training(self) -> Crop:
        size, short_side = crop_sizes(self.recipe)
        if self.recipe.crop == "resized":
            return RandomResizedCrop(size)
        return RandomCrop(size, short_side) if self.recipe.crop == "random" else self.middle


class FolderImages:
    """Pictures of a folder, decoded by worker processes."""

    generator: torch.Generator | None = None  # each picture's numbers follow from seed, epoch and its place

    def __init__(self, folder: ImageFolder, reading: _Reading) -> None:
        self.folder, held_out = split(folder, reading.recipe.held_out)
        self.held_out: EvaluationImages = FolderEvaluation(held_out, reading)
        self._reading = reading
        self._listed = list(folder.skipped) if reading.ranks.first else []

    def __len__(self) -> int:
        return len(self.folder)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        order = _order(len(self), self._reading.recipe, epoch)[first:]
        mine = [self._reading.ranks.share(index).tolist() for index in order]
        return self._reading.batches(self.folder, self._reading.training, mine, epoch, replace=True)

    def plain(self, count: int, unit: int = 1) -> Shared:
        parts = _equal_parts(self._spread(count), _CALIBRATION_BATCH["imagenet"])
        mine, processes = _split(self._reading.ranks, parts, unit)
        batches = self._reading.batches(self.folder, self._reading.middle, map(list, mine), replace=True)
        return (images for images, _ in batches), processes

    def augmented(self, count: int) -> Shared:
        recipe, places = self._reading.recipe, self._spread(count)
        parts = [places[k : k + recipe.batch_size] for k in range(0, len(places), recipe.batch_size)]
        whole = [list(part) for part in parts if len(part) == recipe.batch_size]
        mine, processes = self._reading.ranks.split(len(whole))
        own = whole[mine.start : mine.stop]
        batches = self._reading.batches(self.folder, self._reading.training, own, recipe.epochs, replace=True)
        return (images for images, _ in batches), processes

    def skipped(self) -> list[str]:
        found = self._listed + self._reading.reasons
        self._listed = []
        self._reading.reasons.clear()
        return found

    def _spread(self, count: int) -> range:
        """`count` places or fewer, over all classes."""
        step = max(len(self) // max(count, 1), 1)
        return range(0, len(self), step)[:count]


@dataclass(frozen=True, eq=False)
class FolderEvaluation:
    """The middle of each picture of a folder."""

    folder: ImageFolder
    reading: _Reading
    trained_on: bool = False

    def __len__(self) -> int:
        return len(self.folder)

    def batches(self) -> Iterator[Batch]:
        mine = range(self.reading.ranks.rank, len(self), self.reading.ranks.world)
        parts = [list(mine[k : k + _EVALUATION_BATCH]) for k in range(0, len(mine), _EVALUATION_BATCH)]
        return self.reading.batches(self.folder, self.reading.middle, parts)


def mixed(images: Tensor, labels: Tensor, classes: int, recipe: Recipe, step: int) -> Batch:
    """The batch of `step`, mixed by `cutmix` as often as the recipe says; then its labels are shares [N, classes].
    Seed and step decide, so that a run that goes on needs no state of it.
    """
    if recipe.cutmix == 0:
        return images, labels
    generator = torch.Generator().manual_seed((recipe.seed + 1) * 1_000_000_007 + step)
    if torch.rand(1, generator=generator).item() >= recipe.cutmix:
        return images, labels
    return cutmix(images, labels, recipe.classes or classes, generator)


def crop_sizes(recipe: Recipe) -> tuple[int, int]:
    """Height and width of the crops of ImageNet, and the short side that pictures are scaled to before, in pixels."""
    size = recipe.image_size or 224
    return size, round(size * 256 / 224)


def split(images: _S, held_out: int) -> tuple[_S, _S]:
    """The images to train on and those kept aside."""
    if held_out >= len(images):
        raise UserError(f"held_out is {held_out}; there are {len(images)} training images")
    if held_out == 0:
        return images, images.subset(torch.empty(0, dtype=torch.int64))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    return images.subset(order[held_out:].sort().values), images.subset(order[:held_out].sort().values)


def _order(count: int, recipe: Recipe, epoch: int) -> list[Tensor]:
    """The batches of an epoch: a function of seed and epoch, so that no state of it need be kept."""
    generator = torch.Generator().manual_seed((recipe.seed + 1) * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator)
    return list(order[: count // recipe.batch_size * recipe.batch_size].split(recipe.batch_size))  # type: ignore[no-untyped-call]


def _split(ranks: Ranks, parts: list[range], unit: int) -> tuple[list[range], Processes]:
    """This process's batches of `parts`, in whole units of images."""
    mine, processes = ranks.split(len(parts), max(unit // len(parts[0]), 1) if parts else 1)
    return parts[mine.start : mine.stop], processes


def _equal_parts(places: range, size: int) -> list[range]:
    """`places` in parts of `size`, or in one smaller part; a last, shorter part is left out."""
    size = min(size, len(places))
    return [places[k : k + size] for k in range(0, len(places) - size + 1, max(size, 1))]
