"""`tritkit eval`: how often a network is wrong on CIFAR-10."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from tritkit.cli.images import normalised
from tritkit.cli.output import Facts, Json, emit, percent, say
from tritkit.cli.running import input_of, model_path, open_model
from tritkit.errors import UserError

if TYPE_CHECKING:
    from tritkit.runtime import Session

_BATCH = 500
Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file, a run's final.safetensors, or a packaged network.")],
    data: Annotated[
        str | None, typer.Option(help="Folder of CIFAR-10, or the word sample: the 1,000 packaged test images.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Of an ONNX file's session.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the error on CIFAR-10.

    An ONNX file runs in tritkit's engine, trained weights in torch.
    """
    path = model_path(model)
    images, labels = test_images(data)
    start = time.perf_counter()
    if path.suffix == ".safetensors":
        engine, wrong = "torch", _wrong_in_torch(path, images, labels)
    else:
        session, _ = open_model(str(path), threads)
        engine, wrong = f"Session, {session.threads} threads", wrong_in_session(session, images, labels)
    seconds = time.perf_counter() - start
    facts = {
        "model": str(path),
        "engine": engine,
        "images": len(labels),
        "wrong": wrong,
        "error": wrong / len(labels),
        "seconds": seconds,
    }
    emit(facts, as_json, _render)


def test_images(data: str | None) -> Labelled:
    """uint8 images and labels of the whole test set, or of the packaged sample."""
    if data == "sample":
        from tritkit.zoo import sample

        return sample("test")[:2]
    from tritkit.data import load_cifar10

    found = load_cifar10(data, "test")
    return found.images.numpy(), found.labels.numpy()


def wrong_in_session(session: Session, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> int:
    """How many images the network gives another class than their label."""
    wanted = input_of(session)
    if wanted.shape != images.shape[1:]:
        raise UserError(f"the network takes images {list(wanted.shape)}, CIFAR-10 has {list(images.shape[1:])}")
    wrong = 0
    for start in range(0, len(images), _BATCH):
        logits = np.asarray(session.run(normalised(images[start : start + _BATCH], wanted, "CIFAR-10")))
        wrong += int((logits.argmax(1) != labels[start : start + _BATCH]).sum())
    return wrong


def _wrong_in_torch(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> int:
    import torch

    from tritkit.data import ImageSet
    from tritkit.train import evaluate, load_trained

    net, recipe = load_trained(path)
    classes = tuple(str(k) for k in range(10))
    found = ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes)
    return round(evaluate(net, found, recipe.mean, recipe.std) * len(labels))


def _render(facts: Facts, console: Console) -> None:
    error, count = percent(facts["error"], 2), f"{facts['wrong']:,} of {facts['images']:,} images"
    say(console, f"error {error} ({count}) in {facts['seconds']:.1f} s by {facts['engine']}")
