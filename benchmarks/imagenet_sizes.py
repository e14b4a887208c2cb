"""What the ImageNet networks weigh as files: float32, and exported with ternary weights.

    python benchmarks/imagenet_sizes.py      writes results/imagenet-samples/sizes.json and prints a table

Weights are random: codes take 2 bits whatever they are. First and last layer are int8, all others ternary by TTQ (two
scales a layer) or, for FGQ, one scale for 4 weights.
Every file is checked by running it: stock ONNX Runtime and Session give the same bits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import tritkit
from tritkit.inspection import inspect_file
from tritkit.methods import FGQ, TTQ, Method
from tritkit.models import build

RESULT = Path(__file__).resolve().parent.parent / "results" / "imagenet-samples" / "sizes.json"
ENDS = {"alexnet-bn": ["conv0", "fct"]}
METHODS: dict[str, Method] = {"ttq": TTQ(init="data", latent_gradient="straight-through"), "fgq4": FGQ(4)}
NETWORKS = ("alexnet-bn", "resnet18", "resnet34", "resnet50", "resnet101")


def measure(name: str, label: str, path: Path) -> dict[str, Any]:
    """Bytes of the file and of its parts."""
    torch.manual_seed(0)
    net = build(name)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.momentum = None  # plain averages: one batch sets the statistics
    images = torch.randn(4, 3, 224, 224)
    with torch.no_grad():
        net.train()(images)
    tritkit.ternarize_(net, METHODS[label], exclude=ENDS.get(name, ["conv1", "fc"]))
    net = tritkit.quantize_activations(net.eval())
    tritkit.calibrate(net, [images])
    report = tritkit.export(net, path, images)
    totals = inspect_file(path)["totals"]
    return {"network": name, "method": label, "bytes": report.bytes, "same_bits_in": list(report.checked), **totals}


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = ["| network | method | float32 | file | smaller |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (NETWORKS.index(row["network"]), list(METHODS).index(row["method"]))):
        before, after = row["float_bytes"], row["bytes"]
        sizes = f"{before / 1e6:.1f} MB | {after / 1e6:.2f} MB | {before / after:.1f} ×"
        lines.append(f"| {row['network']} | {row['method']} | {sizes} |")
    return "\n".join(lines)


def main() -> None:
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else []
    for name in NETWORKS:
        for label in METHODS:
            if any((row["network"], row["method"]) == (name, label) for row in rows):
                continue
            print(name, label, file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(name, label, Path(folder) / "net.onnx"))
            RESULT.parent.mkdir(parents=True, exist_ok=True)
            RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
