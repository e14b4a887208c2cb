"""Every method on ResNet-20 from the same float weights, with the same schedule and seed.

    python benchmarks/methods.py                 # runs what is not finished, one record a method under results/methods/
    python benchmarks/methods.py --table         # writes results/methods/table.md from the records, runs nothing

A run that was interrupted goes on where it stopped. The schedule is recipes/compare-resnet20.toml; what a method needs beside it is
in RUNS, and every record carries its whole recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "methods"
RECIPE = ROOT / "recipes" / "compare-resnet20.toml"

DATA_SCALES = ["method.init=data", "method.latent_gradient=straight-through", "scale_lr=1e-4"]

RUNS: dict[str, list[str]] = {
    "float": [],
    "ttq": ["method.name=ttq", *DATA_SCALES],
    "ttq-paper": ["method.name=ttq", "scale_lr=1e-4"],
    "twn": ["method.name=twn"],
    "dorefa-1": ["method.name=dorefa"],
    "absmean": ["method.name=absmean"],
    "lsq": ["method.name=lsq"],
    "bwn": ["method.name=bwn"],
    "fgq-4": ["method.name=fgq", "method.group_size=4"],
    "tga": ["method.name=tga"],
    "binary-connect": ["method.name=binary-connect", "method.scale=data"],  # ±1 would drown the float network's latents
    "ternary-connect": ["method.name=ternary-connect", "method.scale=data"],
    "seq": ["method.name=seq"],
    "deep-compression": [
        "deep_compression.sparsity=0.8",
        "deep_compression.bits_conv=5",
        "deep_compression.share_epoch=8",
    ],
}


def train(label: str, data: str | None, threads: int) -> None:
    """One run, in a process of its own; what it prints goes to its folder."""
    out = RESULTS / label
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tritkit", "train", str(RECIPE), "--out", str(out)]
    command += [f"--set=name={label}", *(f"--set={override}" for override in RUNS[label])]
    command += [f"--data={data}"] if data else []
    waits = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    with open(out / "log.txt", "a") as log:
        done = subprocess.run(command, env={**os.environ, **waits}, stdout=log, stderr=subprocess.STDOUT)
    print(f"{label}: {'done' if done.returncode == 0 else f'failed, see {log.name}'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="*", help=f"runs, of {', '.join(RUNS)}; all by default")
    parser.add_argument("--data", help="the folder of CIFAR-10")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads a run")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for label in arguments.labels or RUNS:
            pool.submit(train, label, arguments.data, arguments.threads)


if __name__ == "__main__":
    main()
