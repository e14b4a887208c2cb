"""Pictures on disk in ImageNet's layout: a folder a class, the classes numbered in the order of their names.

    DIR/train/n01440764/n01440764_10026.JPEG
    DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG

A folder that has neither train nor val but the class folders themselves is both at once. ImageNet's val may also be as
published, all pictures in one folder, where the table of their classes lies in a folder above (see `val_labels`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritkit.data.pictures import SUFFIXES
from tritkit.data.roots import data_roots
from tritkit.data.val_labels import NAME, find_val_labels, read_val_labels
from tritkit.errors import UserError

BadPictures = Literal["refuse", "skip"]
"""What becomes of files that are no pictures: refused with their names, or left out and named."""
Split = Literal["train", "val"]
_INSIDE = ("", "ILSVRC/Data/CLS-LOC")  # where train and val may lie
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The pictures under `root`, not yet read.

    names [N]: file names as bytes, in one array, so that a million of them cost worker processes no copies.
    labels [N] int64: of each picture, an index into `classes`, the names of the class folders in order.
    skipped: what was left out, each with its reason.
    flat: the pictures lie in `root` itself.
    """

    root: Path
    names: NDArray[Any]
    labels: Tensor
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    flat: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """The file of a picture."""
        folder = "" if self.flat else self.classes[int(self.labels[index])]
        return os.path.join(self.root, folder, os.fsdecode(self.names[index]))

    def subset(self, index: Tensor) -> ImageFolder:
        """The pictures at `index` (int64 [M]), in that order; the classes stay."""
        return replace(self, names=self.names[index.numpy()], labels=self.labels[index])


def load_image_folder(root: str | Path | None, split: Split, bad: BadPictures = "refuse") -> ImageFolder:
    """List the pictures for training ("train") or evaluation ("val").

    `root` is a folder as above; None searches for `imagenet` in $TRITKIT_DATA, ./data and ../shared/data. No picture
    is opened. Hidden files are ignored; other files that are no pictures by their suffix and classes without pictures
    are refused, or named in `skipped`. Raises UserError if the layout is another or nothing is found.
    """
    if split not in ("train", "val") or bad not in ("refuse", "skip"):
        raise UserError(f"split is {split!r} and bad {bad!r}; allowed: 'train' or 'val', 'refuse' or 'skip'")
    folder = _place(_root(root), split)
    try:
        found = _listed(folder, split)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error
    if bad == "refuse" and found.skipped:
        raise UserError(f"{folder} has {bad_pictures(found.skipped)}")
    if not len(found):
        raise UserError(f"{folder} has no pictures in folders of their classes ({', '.join(SUFFIXES)}); see its layout")
    return found


def bad_pictures(reasons: Sequence[str]) -> str:
    """The sentence that refuses them."""
    shown = "; ".join(reasons[:_SHOWN]) + ("; …" if len(reasons) > _SHOWN else "")
    return f"{len(reasons)} bad entries ({shown}); remove them, or leave them out with --bad-pictures skip"


def _root(given: str | Path | None) -> Path:
    if given is not None:
        if not Path(given).is_dir():
            raise UserError(f"no folder {given}; give the folder that holds ImageNet's train and val")
        return Path(given)
    for base in data_roots():
        if (base / "imagenet").is_dir():
            return base / "imagenet"
    raise UserError("no ImageNet in a data folder; give the folder that holds its train and val: --data DIR")


def _place(root: Path, split: Split) -> Path:
    for base in (root / inside for inside in _INSIDE):
        present = [name for name in ("train", "val") if (base / name).is_dir()]
        if split in present:
            return base / split
        if present:
            raise UserError(f"{base} has {present[0]} but no {split}; both are needed, each with a folder a class")
    return root


def _listed(folder: Path, split: Split) -> ImageFolder:
    with os.scandir(folder) as entries:
        found = list(entries)
    classes = sorted(entry.name for entry in found if entry.is_dir() and entry.name[0] != ".")
    if not classes and any(entry.name.lower().endswith(SUFFIXES) for entry in found):
        return _flat(folder, split)
    names: list[bytes] = []
    labels: list[int] = []
    skipped: list[str] = []
    for label, name in enumerate(classes):
        pictures, others = _pictures(folder / name)
        names += pictures
        labels += [label] * len(pictures)
        skipped += others
    indices = torch.tensor(labels, dtype=torch.int64)
    return ImageFolder(folder, np.array(names, "S"), indices, tuple(classes), tuple(skipped))


def _flat(folder: Path, split: Split) -> ImageFolder:
    """Validation pictures without folders of classes."""
    table = find_val_labels(folder) if split == "val" else None
    if table is None:
        also = f", or put Kaggle's {NAME} into {folder.parent}" if split == "val" else ""
        raise UserError(f"{folder} has pictures but no folders of classes; sort them into a folder a class{also}")
    label_of = read_val_labels(table)
    classes = sorted(set(label_of.values()))
    number = {name: k for k, name in enumerate(classes)}
    pictures, skipped = _pictures(folder)
    stems = [Path(os.fsdecode(name)).stem for name in pictures]
    known = [k for k, stem in enumerate(stems) if stem in label_of]
    skipped += [f"{folder / stem} has no class in {table}" for stem in stems if stem not in label_of]
    labels = torch.tensor([number[label_of[stems[k]]] for k in known], dtype=torch.int64)
    names = np.array([pictures[k] for k in known], "S")
    return ImageFolder(folder, names, labels, tuple(classes), tuple(skipped), flat=True)


def _pictures(folder: Path) -> tuple[list[bytes], list[str]]:
    """The sorted names of its pictures, and what else there is."""
    pictures, others = [], []
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name[0] == ".":
            continue
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            pictures.append(os.fsencode(entry.name))
        else:
            others.append(f"{entry.path} is no picture by its suffix")
    if not pictures:
        others.append(f"{folder} has no pictures")
    return pictures, others
