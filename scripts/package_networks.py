"""Puts finished runs into the package: a float network as it is, ternary ones as ONNX files, named by their depth.

    python scripts/package_networks.py [--float results/A] [--ternary results/B results/C ...]

Reads the whole test set once for each; writes the files and their rows of manifest.json. Run records stay in results/.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from manifest import add_entry

from tritkit.cli.app import run_app
from tritkit.cli.evaluation import test_images, wrong_in_session
from tritkit.cli.exporting import weights_of
from tritkit.data import ImageSet, load_cifar10
from tritkit.runtime import Session
from tritkit.train import Recipe, evaluate, load_trained

LIMIT = 2_000_000  # bytes of all packaged networks together
LICENCE = "Apache-2.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--float", dest="float_run", type=Path, help="final.safetensors or its folder")
    parser.add_argument("--ternary", type=Path, nargs="*", default=[], help="the same, of ternary networks")
    parser.add_argument("--data", help="folder of CIFAR-10; default: where tritkit finds it")
    parser.add_argument("--dest", type=Path, default=Path("src/tritkit/_zoo"))
    options = parser.parse_args()
    if options.float_run is not None:
        add_float(options.dest, weights_of(options.float_run), load_cifar10(options.data, "test"))
    for run in options.ternary:
        add_ternary(options.dest, weights_of(run), options.data)
    size = sum(path.stat().st_size for path in options.dest.glob("resnet*"))
    print(f"together {size:,} bytes of {LIMIT:,} allowed")
    if size > LIMIT:
        raise SystemExit(1)


def add_float(dest: Path, weights: Path, test: ImageSet) -> None:
    net, recipe = load_trained(weights)
    facts = source_of(recipe) | {"engine": "torch", "test_error": evaluate(net, test, recipe.mean, recipe.std)}
    add(dest, name_of(recipe, "float"), ".safetensors", weights.read_bytes(), facts)


def add_ternary(dest: Path, weights: Path, data: str | None) -> None:
    _, recipe = load_trained(weights)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "net.onnx"
        calibrate = [] if recipe.activations else ["--calibrate", "sample"]
        if run_app(["export", str(weights), "-o", str(path), *calibrate]):
            raise SystemExit(1)
        images, labels = test_images(data)
        wrong = wrong_in_session(Session(path), images, labels)
        facts = source_of(recipe) | {"engine": "tritkit", "test_error": wrong / len(labels)}
        add(dest, name_of(recipe, "ternary"), ".onnx", path.read_bytes(), facts)


def name_of(recipe: Recipe, kind: str) -> str:
    """What `tritkit.hub` calls it, such as "resnet20-cifar10-ternary"."""
    return f"{recipe.model.removeprefix('cifar-')}-cifar10-{kind}"


def source_of(recipe: Recipe) -> dict[str, Any]:
    source = f"trained by this project with the recipe {recipe.name}"
    if _first_weights(recipe).startswith("pretrained/"):
        source += "; its float parent: see NOTICE"
    return {"source": source, "seed": recipe.seed}


def _first_weights(recipe: Recipe) -> str:
    """Where the first of the runs that led to it began; "" is at random."""
    while str(recipe.init).startswith("results/"):
        _, recipe = load_trained(weights_of(Path(str(recipe.init))))
    return recipe.init or ""


def add(dest: Path, name: str, suffix: str, data: bytes, facts: dict[str, Any]) -> None:
    add_entry(dest, name, suffix, data, licence=LICENCE, **facts)
    print(f"{name}{suffix}: {len(data):,} bytes, error {100 * facts['test_error']:.2f} %")


if __name__ == "__main__":
    main()
