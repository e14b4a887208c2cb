"""`tritkit run`: what a network sees in pictures. Needs NumPy, and Pillow for picture files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from tritkit.cli.images import Preprocessing, preprocessing_of, read_images
from tritkit.cli.output import Facts, Json, emit, percent, table
from tritkit.errors import ModelFileError, UserError

if TYPE_CHECKING:
    from tritkit.runtime import Session

_BATCH = 64


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file of tritkit, or the name of a packaged network.")],
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, WebP, .npy or .npz files.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Default: all CPUs of this process.")] = None,
    as_json: Json = False,
) -> None:
    """Classify images with an exported network.

    The file itself says how images are prepared.
    """
    session, path = open_model(model, threads)
    wanted = input_of(session)
    rows = [row for image in images for row in _classify(session, wanted, image, top)]
    emit({"model": str(path), "threads": session.threads, "images": rows}, as_json, _render)


def open_model(model: str, threads: int | None = None) -> tuple[Session, Path]:
    """The session of an ONNX file or of a packaged network's name."""
    from tritkit.runtime import Session

    path = model_path(model)
    if path.suffix == ".safetensors":
        hint = f"make a network of it first: tritkit export {path} -o net.onnx"
        raise UserError(f"{path} holds weights for training; {hint}")
    try:
        return Session(path, threads=threads), path
    except ModelFileError as error:
        raise ModelFileError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def model_path(model: str) -> Path:
    """A file, or the packaged network of that name. UserError with near names if there is neither."""
    path = Path(model)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a model file")
    if path.exists():
        return path
    from tritkit.zoo import hub

    if path.suffix or len(path.parts) > 1:
        raise UserError(f"no file {model}; give an .onnx file, or the name of a packaged network")
    return hub(model)


def file_of(model: str) -> Path:
    """The same; of a run's folder its weights, or those of its last checkpoint."""
    folder = Path(model)
    if not folder.is_dir():
        return model_path(model)
    for name in ("final.safetensors", "checkpoint.pt"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has neither final.safetensors nor checkpoint.pt; give a run's folder or a model file")


def input_of(session: Session) -> Preprocessing:
    """How images are prepared for the network. UserError if it does not take one image and give one row of classes."""
    if len(session.inputs) != 1 or len(session.outputs) != 1 or len(session.outputs[0].shape) != 2:
        shapes = [list(value.shape) for value in (*session.inputs, *session.outputs)]
        raise UserError(f"the network is no image classifier (inputs and outputs {shapes}); use tritkit.Session for it")
    try:
        facts = json.loads(session.metadata.get("tritkit.input", "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the model's metadata tritkit.input is no JSON ({error}); export it again") from error
    if not isinstance(facts, dict):
        raise ModelFileError("the model's metadata tritkit.input is no table; export it again")
    return preprocessing_of(session.inputs[0].shape, facts)


def _classify(session: Session, wanted: Preprocessing, path: Path, top: int) -> Iterator[dict[str, Any]]:
    images = read_images(path, wanted)
    for start in range(0, len(images), _BATCH):
        logits = np.asarray(session.run(images[start : start + _BATCH]))
        for i, row in enumerate(logits):
            number = start + i if len(images) > 1 else None
            yield {"file": str(path), "index": number, "top": _top(row, wanted.classes, top)}


def _top(logits: NDArray[np.float32], classes: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    chances = np.exp(logits.astype(np.float64) - float(logits.max()))
    chances /= chances.sum()
    best = np.argsort(-logits, kind="stable")[:top]
    names = classes if len(classes) == len(logits) else tuple(f"class {k}" for k in range(len(logits)))
    return [
        {"class": int(k), "name": names[k], "logit": float(logits[k]), "probability": float(chances[k])} for k in best
    ]


def _render(facts: Facts, console: Console) -> None:
    rows = []
    for image in facts["images"]:
        name = image["file"] if image["index"] is None else f"{image['file']}[{image['index']}]"
        rows.append([name, *(f"{guess['name']} {percent(guess['probability'])}" for guess in image["top"])])
    guesses = max((len(row) - 1 for row in rows), default=0)
    console.print(table(["image", *(f"{place + 1}." for place in range(guesses))], rows, left=1 + guesses))
