"""`tritkit doctor MODEL`: the findings about a model file, and the images it is tried on."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tritkit.cli.images import _PICTURES, Preprocessing, normalised, preprocessing_of, read_images
from tritkit.cli.output import Facts, cell, emit, say, talk
from tritkit.cli.running import file_of
from tritkit.errors import UserError

if TYPE_CHECKING:
    from tritkit.diagnosis import Group

_MOST = 256  # images read
_COLOURS = {"fault": "bold red", "waste": "bold yellow"}


def examine(model: str, data: str | None, as_json: bool) -> int:
    """Report the findings; returns how many are faults."""
    from tritkit.diagnosis import diagnose, grouped

    path = file_of(model)
    images = None if data is None else _images(path, data)
    if images is not None:
        talk(f"trying the network on {len(images)} images of {data}")
    report = diagnose(path, images)
    emit(report.facts(), as_json, partial(_render, groups=grouped(report.findings)))
    return 0 if report.healthy else 1


def _images(path: Path, data: str) -> NDArray[np.float32]:
    """Some images of `data`, as the file says they are prepared; of a folder of pictures at even distances."""
    wanted = _wanted(path)
    place = Path(data)
    if data == "sample":
        from tritkit.zoo import sample

        return _of_cifar(sample("test").images, wanted)
    if not place.is_dir():
        return read_images(place, wanted)[:_MOST]
    from tritkit.data.cifar10 import has_cifar10, load_cifar10

    if has_cifar10(place):
        return _of_cifar(load_cifar10(place, "test").images.numpy(), wanted)
    files = (Path(at, name) for at, _, names in os.walk(place, followlinks=True) for name in names)
    pictures = sorted(file for file in files if file.suffix.lower() in _PICTURES)
    if not pictures:
        raise UserError(f"{place} has neither pictures nor CIFAR-10; give a folder that has, or an .npy file")
    spread = pictures[:: max(len(pictures) // _MOST, 1)][:_MOST]
    return np.concatenate([read_images(picture, wanted) for picture in spread])


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


def _render(facts: Facts, console: Console, groups: list[Group]) -> None:
    for group in groups:
        _show(group, console)
    faults = sum(finding["severity"] == "fault" for finding in facts["findings"])
    waste = len(facts["findings"]) - faults
    looked = ", ".join(facts["looked_at"])
    images = f" on {facts['images']} images" if facts["images"] else ""
    say(console, f"{facts['file']}: {_verdict(faults, waste)}; looked at {looked}{images}")
    for what, why in facts["not_looked_at"].items():
        hint = "; give some with --data" if why == "no images given" else ""
        say(console, f"not looked at: {what} ({why}{hint})")


def _show(group: Group, console: Console) -> None:
    """One finding, or those of one kind in many layers: what is wrong in the worst, and the cost of all."""
    worst, many = group.worst, len(group.findings)
    head = Text(worst.severity, style=_COLOURS[worst.severity])
    place = f"{many} layers" if many > 1 else worst.place
    console.print(Text("  ").join([head, Text.assemble(cell(place), style="bold"), cell(worst.kind)]))
    lines = [f"in {', '.join(group.places)}"] if many > 1 else []
    lines += [f"{worst.place}: {worst.what}" if many > 1 else worst.what, f"cost: {group.cost}", f"fix:  {worst.fix}"]
    for line in lines:
        console.print(Padding(cell(line), (0, 0, 0, 7)))
    console.print()


def _verdict(faults: int, waste: int) -> str:
    """In words: what was found."""
    found = [_many(faults, "fault")] if faults else []
    found += [_many(waste, "waste of bytes or time", "wastes of bytes or time")] if waste else []
    return ("" if faults else "healthy") + (", but " if waste and not faults else "") + " and ".join(found)


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
