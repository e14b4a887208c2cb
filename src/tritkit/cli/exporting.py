"""`tritkit export`: from a training run to the ONNX file that every engine runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tritkit.cli.output import Facts, Json, emit, percent, say
from tritkit.errors import ModelFileError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tritkit.data import ImageFolder
    from tritkit.deploy import ExportReport
    from tritkit.train import Recipe

Norm = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std a channel, in units of full scale
_CALIBRATION_IMAGES, _BATCH, _PICTURES = 1024, 256, 32
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Flavour(StrEnum):
    """How the file writes our operations."""

    function = "function"
    inlined = "inlined"
    qdq = "qdq"


def command(
    run: Annotated[Path, typer.Argument(help="A training run's folder, or its final.safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    calibrate: Annotated[
        str | None,
        typer.Option(help="Folder of its data set, or the word sample, for a run without 8-bit activations."),
    ] = None,
    flavour: Annotated[Flavour, typer.Option(help="qdq and inlined are for tools that do not expand functions.")] = (
        Flavour.function
    ),
    as_json: Json = False,
) -> None:
    """Export a trained network to one ONNX file.

    It is run and compared before it replaces an older file.
    """
    weights = weights_of(run)
    from tritkit.inspection import inspect_file
    from tritkit.train import load_trained, trained_classes

    net, recipe = load_trained(weights)
    report = export_run(net, recipe, trained_classes(weights) or _CLASSES, out, calibrate, flavour.value)
    facts = {
        "weights": str(weights),
        "file": str(out),
        "flavour": report.flavour,
        "bytes": report.bytes,
        "same_bits_in": list(report.checked),
        "notes": list(report.notes),
        "totals": inspect_file(out)["totals"],
    }
    emit(facts, as_json, _render)


def weights_of(run: Path) -> Path:
    """The final.safetensors of a run given by its folder or by that file."""
    if run.suffix == ".pt":
        raise UserError(f"{run} is a checkpoint of unfinished training; finish it, then give final.safetensors")
    path = run / "final.safetensors" if run.is_dir() else run
    if not path.is_file():
        hint = "the run in this folder is not finished" if run.is_dir() else "give a run's folder or final.safetensors"
        raise UserError(f"no weights at {path}; {hint}")
    return path


def export_run(
    net: nn.Module, recipe: Recipe, classes: Sequence[str], out: Path, calibrate: str | None, flavour: str
) -> ExportReport:
    """Write the network of a run to `out`. Ranges that training did not set need images to calibrate on."""
    norm = (recipe.mean, recipe.std)
    if recipe.activations is None and calibrate is None:
        raise UserError("the run has no 8-bit activations; give images for their ranges: --calibrate sample")
    if recipe.dataset == "cifar10":
        batches = None if calibrate is None else _batches(calibrate, norm)
        return export_network(net, out, (3, 32, 32), norm, classes, calibration=batches, flavour=flavour)
    from tritkit.train import crop_sizes

    size, short_side = crop_sizes(recipe)
    pictures = None if calibrate is None else picture_batches(calibrate, size, short_side, norm)
    shape, options = (3, size, size), {"calibration": pictures, "flavour": flavour}
    return export_network(net, out, shape, norm, classes, short_side, **options)


def export_network(
    net: nn.Module,
    path: Path,
    shape: Sequence[int],
    norm: Norm,
    classes: Sequence[str],
    short_side: int | None = None,
    **options: Any,
) -> ExportReport:
    """Export `net`, which takes images of `shape` [C, H, W], with its preprocessing and class names in the file.

    short_side: of photographs, before the middle is cut out, in pixels. `options` are those of `tritkit.export`.
    """
    import torch

    import tritkit

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    facts = {"mean": list(norm[0]), "std": list(norm[1]), "classes": list(classes)}
    facts |= {"short_side": short_side} if short_side else {}
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    report: ExportReport = tritkit.export(net, path, example, input_info=facts, **options)
    return report


def short_side_of(shape: Sequence[int]) -> int | None:
    """What photographs are scaled to before a network's input of `shape` [C, H, W] is cut out; None for CIFAR-10's."""
    return round(shape[1] * 256 / 224) if shape[1] > 32 else None


def picture_batches(
    root: str, size: int, short_side: int, norm: Norm, limit: int = _CALIBRATION_IMAGES
) -> Iterator[Tensor]:
    """Up to `limit` training pictures of a folder, over all classes, normalised, not augmented."""
    return read_pictures(*training_pictures(root, limit), size, short_side, norm)


def training_pictures(root: str, limit: int) -> tuple[ImageFolder, range]:
    """The pictures of a folder, and where up to `limit` of them over all classes stand."""
    from tritkit.data import load_image_folder

    folder = load_image_folder(root, "train")
    return folder, range(0, len(folder), max(len(folder) // limit, 1))[:limit]


def read_pictures(
    folder: ImageFolder, places: range, size: int, short_side: int, norm: Norm, processes: int = 1
) -> Iterator[Tensor]:
    """The pictures at `places`, their middle, normalised; so many processes of this machine read pictures."""
    from tritkit.data import CentreCrop, PictureLoader, normalise
    from tritkit.data.image_folder import bad_pictures
    from tritkit.data.loading import default_workers

    workers = default_workers(processes)
    loader = PictureLoader(folder, CentreCrop(size, short_side), seed=0, workers=workers, replace=False)
    for batch in loader.batches([places[k : k + _PICTURES] for k in range(0, len(places), _PICTURES)]):
        if batch.bad:
            raise UserError(f"{folder.root} has {bad_pictures(batch.bad)}")
        yield normalise(batch.images, *norm).contiguous()


def image_norm(metadata: Mapping[str, str], source: Path) -> Norm:
    """Mean and std as a safetensors file's metadata gives them. ModelFileError if it does not."""
    try:
        mean, std = (tuple(float(v) for v in metadata[key].split(",")) for key in ("normalize_mean", "normalize_std"))
    except (KeyError, ValueError) as error:
        example = '{"normalize_mean": "0.485,0.456,0.406", "normalize_std": "0.229,0.224,0.225"}'
        hint = f"save it with safetensors' save_file(tensors, path, metadata) and metadata such as {example}"
        raise ModelFileError(f"{source} does not say how images are normalised; {hint}") from error
    return mean, std


def _batches(source: str, norm: Norm) -> Iterator[Tensor]:
    """Training images, normalised, not augmented."""
    import torch

    from tritkit.data import load_cifar10, normalise
    from tritkit.zoo import sample

    if source == "sample":
        images = torch.from_numpy(sample("train").images)
    else:
        images = load_cifar10(source, "train").images[:_CALIBRATION_IMAGES]
    return (normalise(images[i : i + _BATCH], *norm) for i in range(0, len(images), _BATCH))


def _render(facts: Facts, console: Console) -> None:
    totals = facts["totals"]
    say(console, f"{facts['file']}: {facts['bytes']:,} bytes, float32 would be {totals['float_bytes']:,}")
    if totals.get("ternary_density") is not None:
        share = percent(totals["ternary_density"])
        say(console, f"{totals['ternary_weights']:,} ternary weights, of which {share} are not zero")
    if facts["same_bits_in"]:
        say(console, f"checked by running it: {', '.join(facts['same_bits_in'])}")
    for note in facts["notes"]:
        say(console, note)
    say(console, f"Next: tritkit eval {facts['file']}, tritkit inspect {facts['file']}")
