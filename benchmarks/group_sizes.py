"""The speed of ternary ResNet-20 with groups of N weights, beside one scale a channel and the int8 engines.

    python benchmarks/group_sizes.py [--seconds 8]     # prints the table, writes groups.json

Post-training makes the networks (`tritkit.quantize`, 1,000 packaged pictures); the bench times them as any file.
Run it where the peers are installed (requirements-peers.txt, requirements-litert.txt), on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from performance import commit, machine_folder
from performance_page import group_table

import tritkit
from tritkit.bench import Plan, run
from tritkit.data import find_file, normalise
from tritkit.methods import FGQ
from tritkit.models import build, load_float
from tritkit.post import CHANNELS
from tritkit.zoo import sample

SIZES = {"4": FGQ(4), "16": FGQ(16), "64": FGQ(64), "channel": CHANNELS}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PEERS = ("onnxruntime-int8", "openvino-int8", "litert-int8")


def make(size: str, folder: Path) -> Path:
    """The network with groups called `size`, as a file."""
    net = build("cifar-resnet20")
    load_float(find_file("pretrained/resnet20-cifar10.safetensors"), net)
    pictures = torch.from_numpy(sample("train").images)
    calibration = [normalise(pictures[i : i + 256], MEAN, STD) for i in range(0, len(pictures), 256)]
    path = folder / f"resnet20-groups-{size}.onnx"
    tritkit.export(tritkit.quantize(net.eval(), SIZES[size], calibration), path, calibration[0][:2])
    return path


def rows(size: str, path: Path, seconds: float) -> list[dict[str, Any]]:
    """A row for each batch size and number of threads."""
    found = []
    for threads in (1, 2):
        plan = Plan(str(path), batches=(1, 64), threads=threads, peers=PEERS, seconds=seconds)
        for cell in run(plan, lambda line: print(f"  {line}", file=sys.stderr))["cells"]:
            times = {row["engine"]: row.get("median_ms") for row in cell["rows"]}
            facts = {"group_size": size, "batch": cell["batch"], "threads": threads, "bytes": path.stat().st_size}
            found.append(facts | {"ms": times, "others_busy": cell["others_busy"]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="to time one batch size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = {size: make(size, Path(folder)) for size in SIZES}
        found = [row for size, path in paths.items() for row in rows(size, path, options.seconds)]
    (machine_folder() / "groups.json").write_text(json.dumps({"commit": commit(), "rows": found}, indent=1) + "\n")
    print(group_table(found))


if __name__ == "__main__":
    main()
