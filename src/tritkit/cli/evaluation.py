"""`tritkit eval`: how often a network is wrong on CIFAR-10 or on a folder of pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from tritkit.cli.images import Preprocessing, normalised
from tritkit.cli.output import Facts, Json, emit, percent, say
from tritkit.cli.running import input_of, model_path, open_model
from tritkit.cli.training import BadPictures
from tritkit.errors import UserError

if TYPE_CHECKING:
    from tritkit.runtime import Session
    from tritkit.train import Errors, Recipe

_BATCH = 500
_PICTURES = 50
Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]
_Run = Callable[[NDArray[np.float32]], Any]  # images [N, C, H, W] to logits [N, K]


class Engine(StrEnum):
    """What runs an ONNX file."""

    session = "session"
    simulation = "simulation"
    onnxruntime = "onnxruntime"


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file, a run's final.safetensors, or a packaged network.")],
    data: Annotated[
        str | None,
        typer.Option(help="Folder of CIFAR-10 or ImageNet, or the word sample: 1,000 packaged images of CIFAR-10."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="For an ONNX file: tritkit's own, the simulation in torch, or ONNX Runtime.")
    ] = Engine.session,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Of an ONNX file's session.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=256, help="Processes that decode pictures; default: one a core.")
    ] = None,
    bad_pictures: Annotated[
        BadPictures, typer.Option(help="Files that cannot be read: refuse them, or skip and name them.")
    ] = BadPictures.refuse,
    as_json: Json = False,
) -> None:
    """Measure the error on CIFAR-10, or on a folder of pictures in ImageNet's layout with five guesses too.

    An ONNX file runs in tritkit's engine, trained weights in torch. The file says which images it was made for.
    """
    path = model_path(model)
    start = time.perf_counter()
    reading = Reading(data, workers, bad_pictures.value)
    if path.suffix == ".safetensors":
        used, found = "torch", _in_torch(path, reading)
    else:
        session, _ = open_model(str(path), threads)
        used = f"Session, {session.threads} threads" if engine is Engine.session else engine.value
        found = _in_engine(_runner(session, path, engine), session, reading)
    facts = {"model": str(path), "engine": used, **found, "seconds": time.perf_counter() - start}
    emit(facts, as_json, _render)


def test_images(data: str | None) -> Labelled:
    """uint8 images and labels of CIFAR-10's whole test set, or of the packaged sample."""
    if data == "sample":
        from tritkit.zoo import sample

        return sample("test")[:2]
    from tritkit.data import load_cifar10

    found = load_cifar10(data, "test")
    return found.images.numpy(), found.labels.numpy()


def wrong_in_session(session: Session, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> int:
    """How many images of CIFAR-10 the network gives another class than their label."""
    return _wrong(session.run, input_of(session), images, labels)


def _wrong(run: _Run, wanted: Preprocessing, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> int:
    if wanted.shape != images.shape[1:]:
        raise UserError(f"the network takes images {list(wanted.shape)}, CIFAR-10 has {list(images.shape[1:])}")
    wrong = 0
    for start in range(0, len(images), _BATCH):
        logits = np.asarray(run(normalised(images[start : start + _BATCH], wanted, "CIFAR-10")))
        wrong += int((logits.argmax(1) != labels[start : start + _BATCH]).sum())
    return wrong


class Reading:
    """The images that were asked for, and the facts of what became of them."""

    def __init__(self, data: str | None, workers: int | None, bad: str) -> None:
        self.data, self.workers, self.bad = data, workers, bad
        self.skipped: list[str] = []

    def pictures(self, size: int, short_side: int, outputs: int, most: int | None = None) -> Iterator[Labelled]:
        """uint8 images [N, 3, size, size] of the folder for evaluation, and their labels; no more than `most`, at even
        distances.
        """
        from tritkit.data import CentreCrop, PictureLoader, load_image_folder
        from tritkit.data.image_folder import bad_pictures
        from tritkit.data.loading import default_workers

        folder = load_image_folder(self.data, "val", "skip" if self.bad == "skip" else "refuse")
        if len(folder.classes) != outputs:
            raise UserError(f"{folder.root} has {len(folder.classes)} classes, the network {outputs} outputs")
        self.skipped += folder.skipped
        workers = default_workers() if self.workers is None else self.workers
        loader = PictureLoader(folder, CentreCrop(size, short_side), seed=0, workers=workers, replace=False)
        step = 1 if most is None else -(-len(folder) // most)
        order = range(0, len(folder), step)
        for batch in loader.batches([order[k : k + _PICTURES] for k in range(0, len(order), _PICTURES)]):
            if batch.bad and self.bad == "refuse":
                raise UserError(f"{folder.root} has {bad_pictures(batch.bad)}")
            self.skipped += batch.bad
            yield np.ascontiguousarray(batch.images.numpy()), batch.labels.numpy()

    def facts(self, errors: Errors) -> Facts:
        """Of a folder."""
        return {
            "images": errors.images,
            "wrong": errors.wrong,
            "error": errors.top1,
            "wrong_in_5": errors.wrong_in_5,
            "top5_error": errors.top5,
            **({"skipped": self.skipped} if self.skipped else {}),
        }


def _runner(session: Session, path: Path, engine: Engine) -> _Run:
    if engine is Engine.session:
        return session.run
    if engine is Engine.simulation:
        import torch

        from tritkit.deploy.onnx_reader import from_onnx
        from tritkit.deploy.simulate import Simulation

        simulation = Simulation(from_onnx(path))
        return lambda images: simulation(torch.from_numpy(images)).numpy()
    from tritkit.cli.demo.engines import onnx_runtime

    run: _Run = onnx_runtime(path, session.threads)
    return run


def _in_engine(run: _Run, session: Session, reading: Reading) -> Facts:
    wanted = input_of(session)
    if wanted.short_side is None:
        images, labels = test_images(reading.data)
        return _simple(_wrong(run, wanted, images, labels), len(labels))
    from tritkit.train.evaluate import add_errors, label_ranks

    outputs = session.outputs[0].shape[1]
    pictures = reading.pictures(wanted.shape[1], wanted.short_side, int(outputs or 0))
    ranks = (label_ranks(np.asarray(run(normalised(images, wanted, "it"))), labels) for images, labels in pictures)
    return reading.facts(add_errors(ranks))


def _in_torch(path: Path, reading: Reading) -> Facts:
    from tritkit.train import load_trained

    net, recipe = load_trained(path)
    if recipe.dataset == "cifar10":
        return _in_torch_on_cifar(net, recipe, reading.data)
    import torch

    from tritkit.data import normalise
    from tritkit.train import crop_sizes
    from tritkit.train.evaluate import count_errors

    pictures = reading.pictures(*crop_sizes(recipe), recipe.classes or 1000)
    batches = (
        (normalise(torch.from_numpy(images), recipe.mean, recipe.std), torch.from_numpy(labels))
        for images, labels in pictures
    )
    return reading.facts(count_errors(net, batches))


def _in_torch_on_cifar(net: Any, recipe: Recipe, data: str | None) -> Facts:
    import torch

    from tritkit.data import ImageSet
    from tritkit.train import evaluate

    images, labels = test_images(data)
    found = ImageSet(torch.from_numpy(images), torch.from_numpy(labels), tuple(str(k) for k in range(10)))
    return _simple(round(evaluate(net, found, recipe.mean, recipe.std) * len(labels)), len(labels))


def _simple(wrong: int, images: int) -> Facts:
    return {"images": images, "wrong": wrong, "error": wrong / images}


def _render(facts: Facts, console: Console) -> None:
    error, count = percent(facts["error"], 2), f"{facts['wrong']:,} of {facts['images']:,} images"
    top5 = f", among five guesses {percent(facts['top5_error'], 2)}" if "top5_error" in facts else ""
    say(console, f"error {error} ({count}){top5} in {facts['seconds']:.1f} s by {facts['engine']}")
    for reason in facts.get("skipped", ()):
        say(console, f"left out: {reason}")
