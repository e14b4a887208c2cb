"""`tritkit report`: what became of a network, on one page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from tritkit.cli.evaluation import Reading, test_images
from tritkit.cli.images import Preprocessing, normalised
from tritkit.cli.output import Facts, Json, emit, kilobytes, percent, say, table, talk
from tritkit.cli.running import input_of, model_path, open_model
from tritkit.cli.writing import check_place, write_place
from tritkit.errors import UserError

if TYPE_CHECKING:
    from tritkit.report import FloatParent, Labelled

_PHOTOGRAPHS = 5000  # at most, which are 0.75 GB at 224 pixels


def command(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of a packaged network.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML page to write.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The same as Markdown, to write here.")] = None,
    run: Annotated[Path | None, typer.Option(help="The training run: its folder or record.jsonl.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder of CIFAR-10 or ImageNet, or the word sample: 1,000 packaged images.")
    ] = None,
    float_weights: Annotated[
        str | None,
        typer.Option("--float", help="The float network it was made from: weights, a run or a packaged one."),
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(help="What tritkit bench MODEL -o FILE wrote: the other engines.")
    ] = None,
    pruned: Annotated[
        Path | None, typer.Option(help="The record of a pruning run, to stand beside the densities.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Default: all CPUs of this process.")] = None,
    as_json: Json = False,
) -> None:
    """Show what became of a network: size, time, accuracy, weights, layer by layer.

    -o writes one self-contained page. What was not measured is left out, with the way to get it.
    """
    from tritkit.report import Evidence, gather, html_page, markdown_page, pictures

    path = model_path(model)
    for place in (out, markdown):
        if place is not None:
            check_place(place, path)
    if float_weights is not None and data is None:
        raise UserError("--float compares on labelled images; give --data DIR, or --data sample, too")
    images = None if data is None else labelled(path, data)
    parent = None if float_weights is None or images is None else _parent(float_weights, path)
    facts = gather(path, Evidence(run, pruned, bench, images, parent), threads, talk)
    if out is not None:
        write_place(out, html_page(facts, pictures(facts, images)).encode())
    if markdown is not None:
        write_place(markdown, markdown_page(facts).encode())
    emit(facts, as_json, partial(_render, written=[place for place in (out, markdown) if place is not None]))


def labelled(path: Path, data: str) -> Labelled:
    """The images of `data`, prepared as the network's file says. UserError where they do not fit it."""
    from tritkit.report import Labelled

    session, _ = open_model(str(path), 1)
    with session:
        wanted = input_of(session)
        outputs = session.outputs[0].shape[1] or 0
    images, labels = _photographs(data, wanted, outputs) if wanted.short_side else test_images(data)
    if wanted.shape != images.shape[1:]:
        raise UserError(f"the network takes images {list(wanted.shape)}, CIFAR-10 has {list(images.shape[1:])}")
    if len(labels) == 0 or int(labels.max()) >= outputs:
        raise UserError(
            f"the network has {outputs} classes, the data {int(labels.max(initial=-1)) + 1}; give its own data"
        )
    names = wanted.classes if len(wanted.classes) == outputs else tuple(f"class {k}" for k in range(outputs))

    def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return normalised(pixels, wanted, "the data")

    return Labelled(images, labels, names, normalise)


def _photographs(data: str, wanted: Preprocessing, outputs: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Of a folder in ImageNet's layout, those for evaluation."""
    reading = Reading(data, None, "skip")
    talk(f"reading pictures of {data}")
    batches = list(reading.pictures(wanted.shape[1], wanted.short_side or 0, outputs, _PHOTOGRAPHS))
    for reason in reading.skipped:
        talk(f"left out: {reason}")
    if not any(len(labels) for _, labels in batches):
        raise UserError(f"no picture of {data} can be read")
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


def _parent(weights: str, path: Path) -> FloatParent:
    """The network of the weights; its images are normalised as its own file says."""
    from tritkit.cli.networks import load_float_network
    from tritkit.inspection import inspect_file
    from tritkit.report.parent import TorchParent, weighted_layers

    net, shape, (mean, std), classes = load_float_network(weights, None)
    layers = inspect_file(path)["layers"]
    given, here = set(weighted_layers(net)), {row["name"] for row in layers}
    if given != here:
        one = f"one has a layer {min(given ^ here)!r} and the other not"
        raise UserError(f"{weights} holds another network than {path.name} ({one}); give the one it was made from")
    names = [row["name"] for row in layers if row["kind"] == "ternary"]
    own = Preprocessing(shape, mean, std, classes)
    return TorchParent(net, names, lambda pixels: normalised(pixels, own, weights))


def _render(facts: Facts, console: Console, written: list[Path]) -> None:
    say(console, facts["verdict"]["sentence"], "")
    columns = ("layer", "kind", "float32", "in the file", "smaller", "density")
    rows = [
        (size["name"], size["kind"], kilobytes(size["float_bytes"]), kilobytes(size["bytes"]), size["ratio"],
         percent(density["density"]))
        for size, density in zip(facts["sizes"]["layers"], facts["densities"]["layers"], strict=True)
    ]  # fmt: skip
    console.print(table(columns, rows, left=2))
    say(console, "")
    for row in facts["verdict"]["missing"]:
        say(console, f"not measured: {row['what']} ({row['how']})")
    for place in written:
        say(console, f"wrote {place}")
    if not written:
        say(console, "Next: -o report.html writes all of it as one page")
