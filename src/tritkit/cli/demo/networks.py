"""The three networks of the demonstration, and how often each is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tritkit
from tritkit.cli.exporting import export_network, image_norm
from tritkit.data import ImageSet, load_cifar10, normalise
from tritkit.errors import UserError
from tritkit.inspection import inspect_file
from tritkit.methods import TWN
from tritkit.models import build, load_float
from tritkit.runtime import Session
from tritkit.train import evaluate
from tritkit.zoo import hub, sample

Images = NDArray[np.float32]
_BATCH = 250
_FLOAT_LAYERS = ("conv1", "linear")  # these become int8


@dataclass(frozen=True)
class Made:
    """What the other parts measure."""

    net: nn.Module  # float
    float_file: Path
    norm: tuple[tuple[float, ...], tuple[float, ...]]  # mean, std
    images: ImageSet  # the packaged test images
    test: ImageSet | None  # all of them, where CIFAR-10 is found
    post_training: Path
    trained: Path

    def inputs(self, count: int) -> Images:
        """The first `count` packaged test images as the networks take them."""
        return normalise(self.images.images[:count], *self.norm).numpy()


def make(threads: int, data: Path | None, out: Path) -> Made:
    """Load the packaged networks and images; make, calibrate and export the network without training."""
    torch.set_num_threads(threads)
    trained, float_file = hub("resnet20-cifar10-ternary"), hub("resnet20-cifar10-float")
    net = build("cifar-resnet20")
    norm = image_norm(load_float(float_file, net), float_file)
    net.eval()
    training = normalise(_packaged("train").images, *norm)
    ternary = copy.deepcopy(net)
    tritkit.ternarize_(ternary, TWN(per="channel"), exclude=list(_FLOAT_LAYERS))
    tritkit.reestimate_bn_(ternary, _batches(training))
    path, images = out / "resnet20-cifar10-twn.onnx", _packaged("test")
    shape, batches = images.images.shape[1:], _batches(training)
    export_network(ternary.eval(), path, shape, norm, images.classes, calibration=batches)
    return Made(net, float_file, norm, images, _whole_test(data), path, trained)


def errors(made: Made, threads: int) -> list[dict[str, Any]]:
    """A row a network: error on the sample and on the whole test set (0..1), bytes, share of non-zero weights."""
    float_row = {
        "network": "float32",
        "trained": True,
        "engine": "PyTorch",
        "error_sample": evaluate(made.net, made.images, *made.norm),
        "error_test": evaluate(made.net, made.test, *made.norm) if made.test else None,
        "bytes": made.float_file.stat().st_size,
        "density": 1.0,
    }
    return [
        float_row,
        _row("TWN, not trained", False, made, made.post_training, threads),
        _row("ternary, trained", True, made, made.trained, threads),
    ]


def _row(name: str, trained: bool, made: Made, path: Path, threads: int) -> dict[str, Any]:
    facts = inspect_file(path)
    with Session(path, threads=threads) as session:
        return {
            "network": name,
            "trained": trained,
            "engine": "tritkit",
            "error_sample": _error(session, made.images),
            "error_test": _error(session, made.test) if made.test else None,
            "bytes": facts["bytes"],
            "density": facts["totals"]["ternary_density"],
        }


def _error(session: Session, images: ImageSet) -> float:
    """Each file says how its images are normalised; the networks need not agree in that."""
    said, wrong = json.loads(session.metadata["tritkit.input"]), 0
    for start in range(0, len(images), _BATCH):
        batch = normalise(images.images[start : start + _BATCH], said["mean"], said["std"]).numpy()
        guess = np.asarray(session.run(batch)).argmax(1)
        wrong += int((guess != images.labels[start : start + _BATCH].numpy()).sum())
    return wrong / len(images)


def _packaged(split: str) -> ImageSet:
    found = sample("test" if split == "test" else "train")
    return ImageSet(torch.from_numpy(found.images), torch.from_numpy(found.labels), found.classes)


def _whole_test(data: Path | None) -> ImageSet | None:
    """All test images; None if nobody named a folder and none is found."""
    try:
        return load_cifar10(data, "test")
    except UserError:
        if data is not None:
            raise
        return None


def _batches(images: Tensor) -> Iterator[Tensor]:
    return (images[i : i + _BATCH] for i in range(0, len(images), _BATCH))
