"""What a training step costs with each method, beside a float step: ResNet-20, 128 images, as `tritkit train` does it.

    python benchmarks/step_cost.py               # prints a table and writes results/step_cost.json

Time: all networks live in one process and take their steps in turn, so that other load hits all alike; the cost of a
method is the median over the rounds of its time by the float step's of the same round, once in seconds of the clock and
once in seconds of the processor, which other load disturbs less. Memory: the peak of a process that trains one network,
above what it held before its first step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from tritkit import methods
from tritkit.bench.facts import machine_facts
from tritkit.data import ImageSet
from tritkit.train import Silent, make_recipe
from tritkit.train.images import MemoryImages
from tritkit.train.loop import _Run, _Setting
from tritkit.train.ranks import Ranks

FLOAT = "float"
STEPS_FOR_MEMORY = 3
ROOT = Path(__file__).resolve().parent.parent


def trainer(label: str, batch: int, folder: Path, precision: str = "bfloat16") -> _Run:
    """A run of the training loop on random images, which writes nothing until it is told to."""
    method = None if label == FLOAT else {"name": label, **({"scale": "data"} if label.endswith("connect") else {})}
    settings = {"name": label, "batch_size": batch, "method": method, "lr": 1e-3, "seed": 1, "precision": precision}
    recipe = make_recipe(settings)
    made = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, 32, 32), generator=made, dtype=torch.uint8)
    labels = torch.randint(0, 10, (batch,), generator=made)
    images = MemoryImages(ImageSet(pixels, labels, tuple("abcdefghij")), recipe, Ranks())
    run = _Run(_Setting(recipe, folder, Ranks(), 1, False, images.images.classes, Silent()), images)
    run._enter(1)
    return run


def step(run: _Run) -> tuple[float, float]:
    """Seconds of one step, by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    run._step(*next(run.images.batches(0, 0)))
    return time.perf_counter() - clock, time.process_time() - processor


def times(labels: list[str], batch: int, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """For each label the median of its steps in milliseconds, and of its ratios to the float step."""
    torch.set_num_threads(threads)
    runs = {label: trainer(label, batch, ROOT) for label in labels}
    for run in runs.values():
        step(run)
    seconds: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    for turn in range(rounds):
        for label in labels[turn % len(labels) :] + labels[: turn % len(labels)]:  # nobody is always first
            seconds[label].append(step(runs[label]))
    return {label: _medians(each, seconds[FLOAT]) for label, each in seconds.items()}


def _medians(each: list[tuple[float, float]], float_steps: list[tuple[float, float]]) -> dict[str, float]:
    clock, processor = zip(*each, strict=True)
    ratios = [[a / b for a, b in zip(step, other, strict=True)] for step, other in zip(each, float_steps, strict=True)]
    by_clock, by_processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    ms, cpu_ms = (round(1000 * statistics.median(column), 2) for column in (clock, processor))
    return {"ms": ms, "ratio": round(by_clock, 3), "cpu_ms": cpu_ms, "cpu_ratio": round(by_processor, 3)}


def memory(label: str, batch: int) -> int:
    """Kibibytes that training takes at its peak. To be called in a process of its own."""
    torch.set_num_threads(1)
    run = trainer(label, batch, ROOT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(STEPS_FOR_MEMORY):
        step(run)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def facts(labels: list[str], batch: int, rounds: int, threads: list[int]) -> dict[str, Any]:
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:  # forked before this process has run anything
        peaks = {label: pool.apply(memory, (label, batch)) for label in labels}
    timed = {count: times(labels, batch, count, rounds) for count in threads}
    rows = {
        label: {
            **{f"threads_{count}": timed[count][label] for count in timed},
            "memory_kib": peaks[label],
            "memory_ratio": round(peaks[label] / peaks[FLOAT], 3),
        }
        for label in labels
    }
    settings = {"model": "cifar-resnet20", "batch": batch, "precision": "bfloat16", "rounds": rounds}
    machine = machine_facts(sorted(os.sched_getaffinity(0)))
    return {**settings, "torch": torch.__version__, "machine": machine, "methods": rows}


def show(report: dict[str, Any]) -> None:
    print(f"{'times a float step:':24} {'threads':>8} {'clock':>8} {'processor':>10} {'memory':>8}")
    for label, row in report["methods"].items():
        for key in (key for key in row if key.startswith("threads_")):
            ratios = f"{row[key]['ratio']:8.2f} {row[key]['cpu_ratio']:10.2f} {row['memory_ratio']:8.2f}"
            print(f"{label:24} {key.removeprefix('threads_'):>8} {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="*", default=methods.names())
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "results" / "step_cost.json")
    arguments = parser.parse_args()
    report = facts([FLOAT, *arguments.methods], arguments.batch, arguments.rounds, arguments.threads)
    show(report)
    arguments.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
