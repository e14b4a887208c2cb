"""Each ImageNet recipe from end to end, shortened, on a few photographs in ImageNet's layout.

    python benchmarks/imagenet_samples.py --data IMAGENET [NAME...]     runs, exports, evaluates; all of it or some
    python benchmarks/imagenet_samples.py --table                       prints the tables of results/imagenet-samples

IMAGENET holds a folder a class, such as ImageNet's val. Every command is one that a user with ImageNet types, shortened
by --set; what was set stands in the record. Each training is killed (SIGKILL) halfway and goes on when the same command
is given again. Networks are evaluated on the photographs they trained on: the tables say whether the way from recipe to
engine works and how much a method keeps of what was memorised, nothing about ImageNet.
Work that is done is not done again; a run that was cut short goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tritkit.cli.app import run_app
from tritkit.train import read_record

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "imagenet-samples"
WORK = Path("runs") / "imagenet-samples"  # below ROOT: records keep no path of a machine
ENGINES = ("session", "simulation", "onnxruntime")
FLAT = 'schedule={name="cosine", warmup_epochs=0}'


@dataclass(frozen=True)
class Run:
    """A recipe on `photographs`, one a class, with `changes`; `parent` names the run whose weights it starts from."""

    recipe: str
    photographs: int
    changes: tuple[str, ...]
    parent: str | None = None


def _few(recipe: str, epochs: int, *changes: str, parent: str | None = None) -> Run:
    """On ten photographs, all of them in each step; ResNets on 96 pixels."""
    schedule = () if "fgq" in recipe and "retrained" not in recipe else (f"epochs={epochs}", FLAT)
    common = ("batch_size=10", "crop=centre", "bn_images=10", "checkpoint_every=0")
    small = ("image_size=96",) if "alexnet" not in recipe else ()
    calibration = ("activations.calibration_images=10",) if "fgq" in recipe else ()
    from_nothing = () if parent else ("init=none",)
    return Run(recipe, 10, (*schedule, *common, *small, *calibration, *from_nothing, *changes), parent)


def _many(recipe: str, *changes: str) -> Run:
    """On a hundred, from the float network that has memorised them."""
    common = ("batch_size=20", "crop=centre", "bn_images=100", "checkpoint_every=0")
    return Run(recipe, 100, (*common, *changes), "resnet18-float")


_TUNED = ("epochs=6", 'schedule={name="cosine", warmup_epochs=1}')
RUNS: dict[str, Run] = {
    "resnet18-float": Run(
        "imagenet-resnet18-float",
        100,
        (
            *("batch_size=20", "crop=centre", "checkpoint_every=0", "epochs=40", "lr=0.05"),
            *('schedule={name="cosine", warmup_epochs=3}', "bn_images=100"),
        ),
    ),
    "resnet18-ttq": _many(
        "imagenet-resnet18-ttq",
        *_TUNED,
        *("lr=0.01", "scale_lr=1e-4", "method.init=data", "method.latent_gradient=straight-through"),
    ),
    "resnet18-tga": _many("imagenet-resnet18-tga", *_TUNED),
    "resnet18-fgq4": _many("imagenet-resnet50-fgq4", "model=resnet18", "activations.calibration_images=100"),
    "few-alexnet-float": _few("imagenet-alexnet-float", 12, "lr=1e-3"),
    "few-alexnet-ttq": _few("imagenet-alexnet-ttq", 12, "lr=1e-3"),
    "few-alexnet-twn": _few("imagenet-alexnet-twn", 12, "lr=1e-3"),
    "few-alexnet-dorefa": _few("imagenet-alexnet-dorefa", 12, "lr=1e-3"),
    "few-resnet18-twn": _few("imagenet-resnet18-twn", 15, "lr=0.02"),
    "few-resnet18-bwn": _few("imagenet-resnet18-bwn", 30, "lr=0.02"),
    "few-resnet18-ttq": _few("imagenet-resnet18-ttq", 40, "lr=3e-3"),
    "few-resnet34-tga": _few("imagenet-resnet34-tga", 15, "lr=1e-3"),
    "few-resnet50-float": _few("imagenet-resnet18-float", 25, "model=resnet50", "lr=0.005"),
    "few-resnet50-tga": _few("imagenet-resnet50-tga", 15, "lr=1e-3"),
    "few-resnet50-fgq4": _few("imagenet-resnet50-fgq4", 0, parent="few-resnet50-float"),
    "few-resnet50-fgq64": _few("imagenet-resnet50-fgq64", 0, parent="few-resnet50-float"),
    "few-resnet50-fgq64-retrained": _few(
        "imagenet-resnet50-fgq64-retrained", 5, "activations.freeze_epoch=4", "lr=3e-4", parent="few-resnet50-float"
    ),
    "few-resnet101-float": _few("imagenet-resnet18-float", 25, "model=resnet101", "lr=0.005"),
    "few-resnet101-fgq4": _few("imagenet-resnet101-fgq4", 0, parent="few-resnet101-float"),
    "few-resnet101-fgq64": _few("imagenet-resnet101-fgq64", 0, parent="few-resnet101-float"),
}


def photographs(data: Path, count: int) -> Path:
    """A folder of `count` of the class folders of `data`, evenly spread over them in the order of their names."""
    classes = sorted(path for path in data.iterdir() if path.is_dir())
    folder = WORK / f"photographs-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in classes[:: len(classes) // count][:count]:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return folder


def perform(name: str, data: Path) -> None:
    """Train, export, evaluate; then write the result."""
    run, out = RUNS[name], WORK / name
    images = photographs(data, run.photographs)
    changes = [f"classes={run.photographs}", *run.changes]
    if run.parent is not None:
        changes.append(f"init={WORK / run.parent / 'final.safetensors'}")
    reading = ("--data", images, "--workers", 0)  # so few are read sooner than processes for it have begun
    command = ("train", run.recipe, *reading, "-o", out, *(f"--set={change}" for change in changes))
    killed = _killed(out, *command)
    trained = _tritkit(*command)
    if killed is not None:
        _assert_went_on(out, killed)
    file = out / "net.onnx"
    calibrate = () if "activations" in _recipe(out) else ("--calibrate", images)
    exported = _once(out / "export.json", "export", out, "-o", file, *calibrate)
    evaluated = {
        engine: _once(out / f"{engine}.json", "eval", file, *reading, "--engine", engine) for engine in ENGINES
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copy(out / "record.jsonl", RESULTS / f"{name}.jsonl")
    keep = ("images", "wrong", "wrong_in_5")
    facts = {
        "name": name,
        "recipe": run.recipe,
        "changes": changes,
        "starts_from": run.parent,
        "killed_and_went_on_at_step": killed["step"] if killed else None,
        "float_simulation": {key: trained[key] for key in ("test_error", "test_top5_error")},
        "engines": {engine: {key: found[key] for key in keep} for engine, found in evaluated.items()},
        "bytes": exported["bytes"],
        "same_bits_in": exported["same_bits_in"],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _killed(out: Path, *command: object) -> dict[str, int] | None:
    """Give the command to a process of its own and kill that when half of the epochs stand in the record: the step and
    the bytes of the record that the checkpoint has then. None for a network that does not train.
    """
    mark, record = out / "killed.json", out / "record.jsonl"
    if not mark.exists():
        words = [sys.executable, "-m", "tritkit", *map(str, command)]
        begun = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while begun.poll() is None and not _half_done(record):
            time.sleep(0.05)
        begun.kill()  # nothing, where it has ended: there was nothing to train
        if begun.wait() > 0:
            sys.exit(begun.returncode)
        checkpoint = torch.load(out / "checkpoint.pt", weights_only=True, mmap=True)
        mark.write_text(json.dumps({key: checkpoint[key] for key in ("step", "record_bytes")}))
        shutil.copy(record, out / "record-killed.jsonl")
    found: dict[str, int] = json.loads(mark.read_text())
    return found if found["step"] else None


def _half_done(record: Path) -> bool:
    rows = read_record(record) if record.exists() else []
    return bool(rows) and 2 * (len(rows) - 1) >= rows[0]["recipe"]["epochs"] > 0


def _assert_went_on(out: Path, killed: dict[str, int]) -> None:
    """The record begins with the rows of the checkpoint, seconds and all: nothing was trained a second time."""
    before = (out / "record-killed.jsonl").read_bytes()[: killed["record_bytes"]]
    assert (out / "record.jsonl").read_bytes().startswith(before), f"{out} was begun anew"


def _recipe(out: Path) -> dict[str, Any]:
    recipe = json.loads((out / "record.jsonl").read_text().splitlines()[0])["recipe"]
    return {key: value for key, value in recipe.items() if value is not None}


def _once(path: Path, *arguments: object) -> dict[str, Any]:
    """What the command says, from `path` where it said it before."""
    if not path.exists():
        path.write_text(json.dumps(_tritkit(*arguments)))
    return dict(json.loads(path.read_text()))


def _tritkit(*arguments: object) -> dict[str, Any]:
    """The command's JSON; in this process, which has imported torch already."""
    print("tritkit", *arguments, file=sys.stderr, flush=True)
    said = io.StringIO()
    with redirect_stdout(said):
        code = run_app([*map(str, arguments), "--json"])
    if code:
        sys.exit(code)
    return dict(json.loads(said.getvalue()))


def table() -> str:
    """The results as Markdown."""
    lines = [
        "| run | recipe | photographs | killed, went on at step | loss, first and last epoch (guessing) "
        "| wrong: engine, among 5 | file |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_row(name) for name in RUNS if (RESULTS / f"{name}.json").exists()])


def _row(name: str) -> str:
    facts = json.loads((RESULTS / f"{name}.json").read_text())
    rows = [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "epoch"]
    chance = {10: "2.30", 100: "4.61"}[RUNS[name].photographs]
    loss = f"{losses[0]:.2f} → {losses[-1]:.2f} ({chance})" if losses else "not trained"
    engines = facts["engines"].values()
    steps, killed = [row["step"] for row in rows if row["kind"] == "epoch"], facts["killed_and_went_on_at_step"]
    resumed = f"{killed} of {steps[-1]}" if killed else "–"
    same = "the same in all three" if all(found == facts["engines"]["session"] for found in engines) else "DIFFERENT"
    found = facts["engines"]["session"]
    wrong = f"{found['wrong']}, {found['wrong_in_5']} ({same})"
    size = f"{facts['bytes'] / 1e6:.2f} MB"
    return f"| {name} | `{facts['recipe']}` | {found['images']} | {resumed} | {loss} | {wrong} | {size} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(RUNS)}")
    parser.add_argument("--data", type=Path, help="a folder with a folder of photographs for each class")
    parser.add_argument("--table", action="store_true", help="print the results")
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    if options.data is None or not options.data.is_dir() or not set(options.names) <= RUNS.keys():
        parser.error("give --data a folder of class folders, and names of runs")
    data = options.data.resolve()
    os.chdir(ROOT)
    for name in options.names or RUNS:
        perform(name, data)


if __name__ == "__main__":
    main()
