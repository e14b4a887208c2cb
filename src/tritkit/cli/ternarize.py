"""`tritkit ternarize`: from float weights and some images to a ternary ONNX file, without training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tritkit.cli.exporting import Norm, export_network, read_pictures, short_side_of, training_pictures
from tritkit.cli.images import Preprocessing, read_images
from tritkit.cli.networks import load_float_network
from tritkit.cli.output import Facts, Json, emit, percent, say, table
from tritkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tritkit.methods import FGQ
    from tritkit.post import BitsPerWeight, Faithful, Steps
    from tritkit.processes import Processes
    from tritkit.train.ranks import Ranks


class Group(StrEnum):
    """What N counts."""

    weights = "weights"
    kernels = "kernels"


class Multipliers(StrEnum):
    """The scales of an output over its unit."""

    any = "any"
    power_of_two = "power-of-two"


class Activations(StrEnum):
    """The scales of 8-bit activations."""

    affine = "affine"
    power_of_two = "power-of-two"


def command(
    model: Annotated[
        str, typer.Argument(help="Float weights: .safetensors, torchvision's .pth, a float run, or a packaged name.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    calibrate: Annotated[
        str, typer.Option(help="Folder of CIFAR-10 or ImageNet, the word sample, or an .npy file of training images.")
    ],
    group_size: Annotated[
        str,
        typer.Option(
            help="Input channels that share a scale; or the word channel: one an output channel; or mixed:2.5 for at "
            "most 2.5 bits a weight and a size for each layer."
        ),
    ] = "4",
    group: Annotated[Group, typer.Option(help="Groups of single weights or of whole kernels.")] = Group.weights,
    multipliers: Annotated[
        Multipliers,
        typer.Option(help="Group scales over the unit of their output: any of 1 to 64, or only 1, 2, 4, ... 64."),
    ] = Multipliers.any,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>",
            help="A layer to make int8, as the first and the last are: its name, or a pattern such as layer1.*. "
            "Give it again for more.",
        ),
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="As the paper does: nearest weights, batch norm measured again.")
    ] = False,
    activations: Annotated[Activations, typer.Option(help="power-of-two is the paper's.")] = Activations.affine,
    images: Annotated[int, typer.Option(min=16, help="Calibration images, at most.")] = 1024,
    architecture: Annotated[
        str | None, typer.Option(help="The network's name, such as cifar-resnet20; default: as the weights tell.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a trained float network ternary without training it.

    Needs some training images without labels; takes a minute or two for a CIFAR ResNet. Under torchrun its processes
    share the images.
    """
    ask = _method(group_size, group, multipliers)
    from tritkit.post import BitsPerWeight, choose_group_sizes, count, quantize
    from tritkit.train.ranks import joined

    loaded = load_float_network(model, architecture)
    left = _left(loaded.net, exclude)
    steps, start = _steps(faithful, activations), time.perf_counter()
    with joined("give the same command again") as ranks, _bar(ranks.first) as progress:
        batches, processes = _batches(calibrate, loaded.shape, loaded.norm, images, ranks)
        chosen: FGQ | dict[str, FGQ]
        if isinstance(ask, BitsPerWeight):  # by the first process's images, the first of all
            own = choose_group_sizes(loaded.net, batches, ask, exclude=left, progress=progress)
            chosen = {name: replace(m, multipliers=multipliers.value) for name, m in processes.gather([own])[0].items()}
        else:
            chosen = ask
        net = quantize(
            loaded.net, chosen, batches,
            exclude=left, steps=steps, images=images, progress=progress, processes=processes,
        )  # fmt: skip
        used = sum(processes.gather([sum(map(len, batches))]))
    if not ranks.first:
        return
    seconds = time.perf_counter() - start
    report = export_network(net, out, loaded.shape, loaded.norm, loaded.classes, short_side_of(loaded.shape))
    facts = {
        "model": str(model),
        "file": str(out),
        "bytes": report.bytes,
        "method": {"bits": ask.limit} if isinstance(ask, BitsPerWeight) else ask.params(),
        "multipliers": multipliers.value,
        "excluded": exclude or [],
        "steps": "faithful" if faithful else "better",
        "activations": activations.value,
        "images": used,
        "seconds": seconds,
        "same_bits_in": list(report.checked),
        "notes": list(report.notes),
        **count(net, batches[0]).facts(),
    }
    emit(facts, as_json, _render)


def _left(net: nn.Module, exclude: list[str] | None) -> list[str] | None:
    """The layers that become int8: the first, the last, and those the user names; None is the first and the last."""
    from tritkit.activations import quantize_activations
    from tritkit.post.layers import layer_names

    if not exclude:
        return None
    names = layer_names(quantize_activations(net))
    return [names[0], names[-1], *exclude]


def _method(group_size: str, group: Group, multipliers: Multipliers) -> FGQ | BitsPerWeight:
    from tritkit.methods import FGQ
    from tritkit.post import CHANNELS, BitsPerWeight

    if group_size == "channel":
        return replace(CHANNELS, multipliers=multipliers.value)
    kind, _, bits = group_size.partition(":")
    if kind == "mixed" and bits.replace(".", "", 1).isdigit():
        if group is not Group.weights:
            raise UserError("--group-size mixed chooses groups of weights; leave out --group")
        return BitsPerWeight(float(bits))
    if not group_size.isdigit() or int(group_size) < 1:
        allowed = "a whole number from 1, the word channel, or mixed:2.5 for at most 2.5 bits a weight"
        raise UserError(f"--group-size is {group_size!r}; allowed: {allowed}")
    return FGQ(int(group_size), group.value, multipliers=multipliers.value)


def _steps(faithful: bool, activations: Activations) -> Steps | Faithful:
    from tritkit.post import BETTER, FAITHFUL, PowerOfTwo

    steps: Steps | Faithful = FAITHFUL if faithful else BETTER
    return replace(steps, observer=PowerOfTwo()) if activations is Activations.power_of_two else steps


def _batches(
    source: str, shape: tuple[int, int, int], norm: Norm, limit: int, ranks: Ranks
) -> tuple[list[Tensor], Processes]:
    """This process's training images of `limit` in all, normalised, not augmented, and who has the others."""
    import torch

    from tritkit.data import load_cifar10, normalise
    from tritkit.post import UNIT
    from tritkit.zoo import sample

    path = Path(source)
    if path.suffix.lower() in (".npy", ".npz"):
        found = torch.tensor(read_images(path, Preprocessing(shape, norm[0], norm[1], ())))[:limit]
        mine, processes = ranks.split(len(found), UNIT)
        return list(torch.split(found[mine.start : mine.stop], UNIT)), processes
    short_side = short_side_of(shape)
    if short_side is not None and path.is_dir():
        folder, places = training_pictures(source, limit)
        mine, processes = ranks.split(len(places), UNIT)
        own = places[mine.start : mine.stop]
        return list(read_pictures(folder, own, shape[1], short_side, norm, ranks.here)), processes
    pixels = torch.from_numpy(sample("train").images) if source == "sample" else load_cifar10(source, "train").images
    if tuple(pixels.shape[1:]) != shape:
        raise UserError(f"the network takes images {list(shape)}, CIFAR-10 has {list(pixels.shape[1:])}; give an .npy")
    mine, processes = ranks.split(min(len(pixels), limit), UNIT)
    return [normalise(part, *norm) for part in torch.split(pixels[mine.start : mine.stop], UNIT)], processes


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error where that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("layers", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        yield progress


def _group(size: int | None) -> str:
    return "" if size is None else "all" if size >= 1 << 20 else str(size)


def _render(facts: Facts, console: Console) -> None:
    columns = ("layer", "weights", "kind", "group", "density", "multiplications", "of float", "removed", "additions")
    rows = [
        (row["name"], row["weights"], row["kind"], _group(row["group_size"]), percent(row["density"]),
         row["multiplications"], row["macs"], percent(row["removed"]), row["additions"])
        for row in facts["layers"]
    ]  # fmt: skip
    console.print(table(columns, rows, "multiplications and additions for one image"))
    for title, total in (("ternary layers", facts["ternary"]), ("all layers", facts["all"])):
        removed, bits = percent(total["removed"]), f"{total['bits_a_weight']:.3g} bits a weight"
        say(console, f"{title}: {removed} of the multiplications removed, {total['additions']:,} additions, {bits}")
    say(console, f"{facts['file']}: {facts['bytes']:,} bytes, {facts['seconds']:.0f} s on {facts['images']:,} images")
    if facts["same_bits_in"]:
        say(console, f"checked by running it: {', '.join(facts['same_bits_in'])}")
    for note in facts["notes"]:
        say(console, note)
    say(console, f"Next: tritkit eval {facts['file']}, tritkit inspect {facts['file']}")
