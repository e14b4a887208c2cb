"""What the ImageNet recipes would cost: arithmetic from multiplications, a published rate and assumptions, named here.

    python benchmarks/imagenet_cost.py      prints the tables of docs/scaling.md

Nothing is measured. One step takes  compute + batch norm + the part of the all-reduce that the backward pass cannot
hide,  and never less than the time to launch its kernels:

    compute     images of a device / rate,  rate = that of ResNet-50 times the ratio of multiplications
    batch norm  two collective operations a norm, each LATENCY
    all-reduce  2 · 4 bytes · parameters · (n − 1)/n / bandwidth, hidden behind two thirds of compute
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
IMAGES, VALIDATION = 1_281_167, 50_000
DECODED = 530  # photographs a second that one core hands over here at least: results/image_folder.json
RATE = 2470  # ResNet-50 images a second in mixed precision on one A100 80GB: NVIDIA/DeepLearningExamples, ResNet50v1.5
LATENCY = 30e-6  # s, of a small collective operation; an assumption
INSIDE, BETWEEN = 200e9, 20e9  # bytes/s for each device within a machine of eight and between machines; assumptions
LAUNCH = 0.015  # s, of a step's kernels whatever their size; an assumption
EXTRA = 1.05  # a ternary step beside a float one on images so large; an assumption (small: results/step_cost.json)
# GMAC an image, million parameters, batch norms: counted from tritkit.models
NETWORKS = {
    "alexnet-bn": (1.94, 60.98, 6),
    "resnet18": (1.81, 11.69, 20),
    "resnet34": (3.66, 21.80, 36),
    "resnet50": (4.09, 25.56, 53),
    "resnet101": (7.80, 44.55, 104),
}


def step_parts(network: str, batch: int, devices: int) -> tuple[float, float, float]:
    """Seconds of compute, batch norm and all-reduce that shows."""
    gmac, parameters, norms = NETWORKS[network]
    compute = batch / devices / (RATE * NETWORKS["resnet50"][0] / gmac) * EXTRA
    if devices == 1:
        return compute, 0.0, 0.0
    bandwidth = INSIDE if devices <= 8 else BETWEEN
    reduce = 2 * 4 * parameters * 1e6 * (devices - 1) / devices / bandwidth
    return compute, 2 * norms * LATENCY, max(reduce - compute * 2 / 3, 0.0)


def hours(network: str, batch: int, epochs: int, devices: int) -> tuple[float, str]:
    """Of a recipe, and what takes the largest part of a step."""
    parts = step_parts(network, batch, devices)
    step = max(sum(parts), LAUNCH)
    names = ("compute", "batch norm", "all-reduce")
    limit = "launches" if sum(parts) < LAUNCH else names[parts.index(max(parts))]
    return IMAGES // batch * epochs * step / 3600, limit


def recipes() -> dict[str, dict[str, Any]]:
    """By name, without the word before it."""
    paths = sorted(RECIPES.glob("imagenet-*.toml"))
    return {path.stem.removeprefix("imagenet-"): tomllib.loads(path.read_text()) for path in paths}


def table() -> str:
    """Hours of every recipe that trains."""
    lines = ["| recipe | EFLOP | 1 accelerator | 8 | 64 |", "|---|---|---|---|---|"]
    for name, recipe in recipes().items():
        network, batch, epochs = recipe["model"], recipe["batch_size"], recipe["epochs"]
        if not epochs:
            continue
        flop = 6e9 * NETWORKS[network][0] * IMAGES * epochs / 1e18
        cells = [f"{time:.1f} h ({limit})" for time, limit in (hours(network, batch, epochs, n) for n in (1, 8, 64))]
        lines.append(f"| `{name}` | {flop:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def untrained() -> str:
    """What recipes without training take: forward passes over what they are calibrated with, and over validation."""
    lines = ["| recipe | pictures | EFLOP | 1 accelerator | decoding on one core |", "|---|---|---|---|---|"]
    for name, recipe in recipes().items():
        if not recipe["epochs"]:
            network = recipe["model"]
            pictures = VALIDATION + recipe["bn_images"] + recipe["activations"]["calibration_images"]
            seconds = step_parts(network, pictures, 1)[0] / 3  # the forward pass is a third of a training step
            flop = 2e9 * NETWORKS[network][0] * pictures / 1e18
            lines.append(f"| `{name}` | {pictures:,} | {flop:.4f} | {seconds:.0f} s | {pictures / DECODED:.0f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), untrained(), sep="\n\n")
