"""Ternary CIFAR ResNets without training: error against group size, and what each step gains.

    python benchmarks/post_training.py                          # what is not measured yet, a row each in RECORD
    python benchmarks/post_training.py --depths 20 --sizes 4 64 --forms better
    python benchmarks/post_training.py --steps                  # the steps one by one, on held-out training images
    python benchmarks/post_training.py --table                  # writes results/post-training/table.md from the records

The float networks are pretrained/resnet{20,32,44,56}-cifar10.safetensors in the data folder. Calibration takes the
first 1,024 training images without their labels; steps are compared on the training images from 45,000 on; the test
set is used for the tables only, all of it, by the exported integer network in tritkit's engine. A run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tritkit
from tritkit.cli.evaluation import wrong_in_session
from tritkit.data import ImageSet, find_file, load_cifar10, normalise
from tritkit.methods import FGQ
from tritkit.models import build, load_float
from tritkit.observers import MSE
from tritkit.post import (
    BETTER,
    CHANNELS,
    FAITHFUL,
    LAYERWISE,
    BitsPerWeight,
    Compensate,
    Descend,
    Faithful,
    MatchMoments,
    Nearest,
    PowerOfTwo,
    Regress,
    Solve,
    Steps,
    choose_group_sizes,
    count,
    quantize,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "post-training"
RECORD, STEPS, TABLE = RESULTS / "record.jsonl", RESULTS / "steps.jsonl", RESULTS / "table.md"

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOAT_ERRORS = {20: 8.27, 32: 7.37, 44: 6.90, 56: 6.61}
SIZES = ("2", "4", "8", "16", "32", "64", "channel", "mixed:3", "mixed:4")  # mixed: at most 3 or 4 bits a weight
POWERS = ("4 power-of-two", "64 power-of-two")  # multipliers of FGQ; in the record, not in the table
IMAGES, HELD_OUT, BATCH = 1024, 45_000, 256

FORMS: dict[str, Steps | Faithful] = {
    "faithful": FAITHFUL,
    "faithful, power-of-two activations": Faithful(PowerOfTwo()),
    "layerwise": LAYERWISE,
    "better": BETTER,
    "better, power-of-two activations": Steps(BETTER.weights, BETTER.norm, PowerOfTwo()),
}
LADDER: dict[str, Steps | Faithful] = {
    "nearest codes, batch norm measured again (faithful)": FAITHFUL,
    "nearest codes, scale and shift by regression": Steps((Nearest(),), Regress()),
    "+ error compensation": Steps((Compensate(),), Regress()),
    "+ solved for the ternary network's inputs": Steps((Solve(), Compensate()), Regress()),
    "+ scales fitted together": Steps((Solve(), Compensate(), Descend(1, 0)), Regress()),
    "+ coordinate descent (layerwise)": LAYERWISE,
    "layerwise, three passes of compensation": Steps((Solve(), Compensate(3), Descend()), Regress()),
    "layerwise, moments matched instead of regression": Steps(LAYERWISE.weights, MatchMoments()),
    "layerwise, activation ranges of least squared error": Steps(LAYERWISE.weights, LAYERWISE.norm, MSE()),
    "+ descent on the network's outputs (better)": BETTER,
}


def quantized(net: nn.Module, size: str, calibration: list[Tensor], steps: Steps | Faithful) -> nn.Module:
    """With the groups called `size`: N weights (and multipliers), one scale an output, or a size for each layer."""
    if size.startswith("mixed:"):
        chosen = choose_group_sizes(net, calibration, BitsPerWeight(float(size.removeprefix("mixed:"))))
        return quantize(net, chosen, calibration, steps=steps)
    if size == "channel":
        return quantize(net, CHANNELS, calibration, steps=steps)
    count, _, multipliers = size.partition(" ")
    return quantize(net, FGQ(int(count), multipliers=multipliers or "any"), calibration, steps=steps)


def float_network(depth: int) -> nn.Module:
    net = build(f"cifar-resnet{depth}")
    load_float(find_file(f"pretrained/resnet{depth}-cifar10.safetensors"), net)
    return net.eval()


def batches(images: Tensor) -> list[Tensor]:
    return [normalise(images[i : i + BATCH], MEAN, STD) for i in range(0, len(images), BATCH)]


def facts_of(depth: int, size: str, form: str) -> dict[str, Any]:
    """What identifies a row, and what is needed to measure it again."""
    return {
        "network": f"cifar-resnet{depth}",
        "weights": f"pretrained/resnet{depth}-cifar10.safetensors",
        "group_size": size,
        "form": form,
        "images": IMAGES,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"tritkit": tritkit.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def measure(depth: int, size: str, form: str, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Quantize, export, run the whole test set in the engine."""
    wall, cpu = time.perf_counter(), time.process_time()
    calibration = batches(train.images[:IMAGES])
    net = quantized(float_network(depth), size, calibration, FORMS[form])
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    counts = count(net, calibration[0]).facts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        info = {"mean": list(MEAN), "std": list(STD)}
        report = tritkit.export(net, path, calibration[0][:2], input_info=info)
        session = tritkit.Session(path, threads=1)
        wrong = wrong_in_session(session, test.images.numpy(), test.labels.numpy())
    return {
        **facts_of(depth, size, form),
        "steps": repr(FORMS[form]),
        "wrong": wrong,
        "of": len(test),
        "error_percent": 100 * wrong / len(test),
        "float_error_percent": FLOAT_ERRORS[depth],
        **seconds,
        "bytes": report.bytes,
        "density": report.density,
        "removed_of_ternary": counts["ternary"]["removed"],
        "removed_of_all": counts["all"]["removed"],
        "bits_a_weight": counts["ternary"]["bits_a_weight"],
        "additions": counts["all"]["additions"],
    }


@torch.no_grad()
def logits(net: nn.Module, images: Tensor) -> Tensor:
    with torch.nn.utils.parametrize.cached():
        return torch.cat([net(batch) for batch in batches(images)])


def measure_step(depth: int, size: str, step: str, train: ImageSet, held_out: int) -> dict[str, Any]:
    """Distance from the float network on training images that calibration has not seen, without their labels."""
    wall, cpu = time.perf_counter(), time.process_time()
    floating = float_network(depth)
    net = quantized(floating, size, batches(train.images[:IMAGES]), LADDER[step])
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    images = train.images[HELD_OUT : HELD_OUT + held_out]
    theirs, ours = logits(floating, images), logits(net, images)
    p, q = theirs.log_softmax(1), ours.log_softmax(1)
    return {
        **facts_of(depth, size, step),
        "steps": repr(LADDER[step]),
        "held_out": [HELD_OUT, HELD_OUT + held_out],
        "other_class_percent": 100 * float((ours.argmax(1) != theirs.argmax(1)).float().mean()),
        "divergence": float((p.exp() * (p - q)).sum(1).mean()),
        **seconds,
    }


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def add(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["network"], row["group_size"], row["form"]


def write_tables() -> None:
    lines = ["# Post-training ternary networks on CIFAR-10", ""]
    rows = rows_in(RECORD)
    for form in dict.fromkeys(row["form"] for row in rows):
        found = {key(row): row for row in rows if row["form"] == form}
        lines += [f"## {form}: test error in %", "", f"| network | float | {' | '.join(SIZES)} |"]
        lines += ["| --- " * (2 + len(SIZES)) + "|"]
        for depth, error in FLOAT_ERRORS.items():
            cells = [found.get((f"cifar-resnet{depth}", size, form)) for size in SIZES]
            shown = [f"{cell['error_percent']:.2f}" if cell else "" for cell in cells]
            lines.append(f"| ResNet-{depth} | {error:.2f} | {' | '.join(shown)} |")
        lines.append("")
    for network, size in dict.fromkeys((row["network"], row["group_size"]) for row in rows_in(STEPS)):
        lines += [f"## Steps, {network}, N = {size}: on held-out training images", ""]
        lines += ["| steps | other class than float, % | divergence | CPU s |", "| --- | --- | --- | --- |"]
        for row in rows_in(STEPS):
            if (row["network"], row["group_size"]) == (network, size):
                numbers = f"{row['other_class_percent']:.2f} | {row['divergence']:.4f} | {row['cpu_seconds']:.0f}"
                lines.append(f"| {row['form']} | {numbers} |")
        lines.append("")
    TABLE.write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", nargs="*", type=int, default=list(FLOAT_ERRORS), choices=list(FLOAT_ERRORS))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=(*SIZES, *POWERS))
    parser.add_argument("--forms", nargs="*", default=["faithful", "better"], choices=list(FORMS))
    parser.add_argument("--data", help="the folder of CIFAR-10")
    parser.add_argument("--steps", action="store_true", help="the steps one by one instead of the table")
    parser.add_argument("--held-out", type=int, default=5000, help="training images that steps are compared on")
    parser.add_argument("--table", action="store_true", help="write the tables from the records and stop")
    arguments = parser.parse_args()
    if arguments.table:
        write_tables()
        return
    train, test = (load_cifar10(arguments.data, split) for split in ("train", "test"))
    names, path = (LADDER, STEPS) if arguments.steps else (arguments.forms, RECORD)
    for depth in arguments.depths:
        for size in arguments.sizes:
            for name in names:
                if (f"cifar-resnet{depth}", size, name) in map(key, rows_in(path)):
                    continue
                if arguments.steps:
                    row = measure_step(depth, size, name, train, arguments.held_out)
                else:
                    row = measure(depth, size, name, train, test)
                add(path, row)
                shown = row.get("error_percent", row.get("other_class_percent"))
                print(f"{depth} {size} {name}: {shown:.2f} % in {row['cpu_seconds']:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
