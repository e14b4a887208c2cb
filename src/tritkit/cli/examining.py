"""`tritkit doctor MODEL`: the findings about a model file, and the images it is tried on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tritkit.cli.images import _PICTURES, Preprocessing, normalised, preprocessing_of, read_images
from tritkit.cli.output import Facts, cell, emit, say, talk
from tritkit.cli.running import model_path
from tritkit.errors import UserError

_MOST = 256  # images read
_COLOURS = {"fault": "bold red", "waste": "bold yellow"}


def examine(model: str, data: str | None, as_json: bool) -> int:
    """Report the findings; returns how many are faults."""
    from tritkit.diagnosis import diagnose

    path = _file(model)
    images = None if data is None else _images(path, data)
    if images is not None:
        talk(f"trying the network on {len(images)} images of {data}")
    report = diagnose(path, images)
    emit(report.facts(), as_json, _render)
    return 0 if report.healthy else 1


def _file(model: str) -> Path:
    """The model; of a run's folder its weights, or those of its last checkpoint."""
    folder = Path(model)
    if not folder.is_dir():
        return model_path(model)
    for name in ("final.safetensors", "checkpoint.pt"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has neither final.safetensors nor checkpoint.pt; give a run's folder or a model file")


def _images(path: Path, data: str) -> NDArray[np.float32]:
    """The first images of `data`, as the file says they are prepared."""
    wanted = _wanted(path)
    place = Path(data)
    if data == "sample":
        from tritkit.zoo import sample

        return _of_cifar(sample("test").images, wanted)
    if not place.is_dir():
        return read_images(place, wanted)[:_MOST]
    pictures = sorted(p for p in place.rglob("*") if p.suffix.lower() in _PICTURES)[:_MOST]
    if pictures:
        return np.concatenate([read_images(picture, wanted) for picture in pictures])
    from tritkit.data import load_cifar10

    return _of_cifar(load_cifar10(data, "test").images.numpy(), wanted)


def _of_cifar(pixels: NDArray[np.uint8], wanted: Preprocessing) -> NDArray[np.float32]:
    if pixels.shape[1:] != wanted.shape:
        raise UserError(f"the network takes images {list(wanted.shape)}, CIFAR-10 has {list(pixels.shape[1:])}")
    return normalised(pixels[:_MOST], wanted, "CIFAR-10")


def _wanted(path: Path) -> Preprocessing:
    """What the file says about its images. UserError where it is no integer network of tritkit."""
    from tritkit.inspection import inspect_file

    facts = inspect_file(path)
    if facts["format"] != "tritkit-onnx":
        raise UserError(f"--data needs a network exported by tritkit, {path} is {facts['format']}; leave --data out")
    from tritkit.deploy.onnx_reader import from_onnx

    graph = from_onnx(path)
    shape = (None, *graph.values[graph.inputs[0]].shape)
    return preprocessing_of(shape, json.loads(graph.metadata.get("tritkit.input", "{}")))


def _render(facts: Facts, console: Console) -> None:
    for finding in facts["findings"]:
        _show(finding, console)
    faults = sum(finding["severity"] == "fault" for finding in facts["findings"])
    waste = len(facts["findings"]) - faults
    looked = ", ".join(facts["looked_at"])
    images = f" on {facts['images']} images" if facts["images"] else ""
    say(console, f"{facts['file']}: {_verdict(faults, waste)}; looked at {looked}{images}")
    for what, why in facts["not_looked_at"].items():
        hint = "; give some with --data" if why == "no images given" else ""
        say(console, f"not looked at: {what} ({why}{hint})")


def _show(finding: dict[str, Any], console: Console) -> None:
    head = Text(finding["severity"], style=_COLOURS[finding["severity"]])
    console.print(Text("  ").join([head, Text.assemble(cell(finding["place"]), style="bold"), cell(finding["kind"])]))
    for label, key in (("", "what"), ("cost: ", "cost"), ("fix:  ", "fix")):
        console.print(Padding(cell(label + finding[key]), (0, 0, 0, 7)))
    console.print()


def _verdict(faults: int, waste: int) -> str:
    """In words: what was found."""
    found = [_many(faults, "fault")] if faults else []
    found += [_many(waste, "waste of bytes or time", "wastes of bytes or time")] if waste else []
    return ("" if faults else "healthy") + (", but " if waste and not faults else "") + " and ".join(found)


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
