"""What the choices of a training run cost on this CPU: precision, the teacher's bits, simulated activations.

    python benchmarks/training_cost.py --data DIR     # prints a table and writes results/training_cost.json

One thread, 128 images of CIFAR-10's size. Each pair is timed in turn; the figures are medians of the rounds in
milliseconds. DIR holds pretrained/resnet56-cifar10.safetensors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from step_cost import trainer

from tritkit.activations import FakeQuantize
from tritkit.bench.facts import machine_facts
from tritkit.train.recipe import make_recipe
from tritkit.train.teacher import make_teacher

ROOT = Path(__file__).resolve().parent.parent
BATCH = 128
Pair = dict[str, Callable[[], object]]


def precision(folder: Path) -> Pair:
    """A step of float ResNet-20."""
    runs = {name: trainer("float", BATCH, folder / name, precision=name) for name in ("bfloat16", "float32")}
    return {name: lambda run=run: run._step(*next(run.images.batches(0, 0))) for name, run in runs.items()}


def teacher(folder: Path) -> Pair:
    """The logits of ResNet-56."""
    run = trainer("float", BATCH, folder)
    (images, _) = next(run.images.batches(0, 0))
    pair: Pair = {}
    for bits in (32, 8):
        settings = {"model": "cifar-resnet56", "weights": "pretrained/resnet56-cifar10.safetensors", "bits": bits}
        recipe = make_recipe({"distill": settings, "precision": "float32"})
        assert recipe.distill is not None
        logits = make_teacher(recipe.distill, recipe, torch.device("cpu"), run.images)
        pair[f"{bits} bits"] = torch.no_grad()(lambda logits=logits: logits(images))
    return pair


def activations(folder: Path) -> Pair:
    """Forward and backward of one quantizer on [128, 16, 32, 32], and with PyTorch's fused kernel."""
    quantizer = FakeQuantize().train()
    quantizer.set_range(0.0, 2.55)
    quantizer.freeze()
    x = torch.randn(BATCH, 16, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(x)

    def run(f: Callable[[], torch.Tensor]) -> None:
        x.grad = None
        f().backward(gradient)  # type: ignore[no-untyped-call]

    fused = torch.fake_quantize_per_tensor_affine
    return {
        "PyTorch": lambda: run(lambda: fused(x, quantizer.scale, quantizer.zero_point, 0, 255)),
        "tritkit": lambda: run(lambda: quantizer(x)),
    }


def medians(pair: Pair, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in pair}
    for round_ in range(rounds + 2):
        for name, call in pair.items():
            start = time.perf_counter()
            call()
            if round_ >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="the folder with pretrained/; default: $TRITKIT_DATA")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["TRITKIT_DATA"] = arguments.data
    torch.set_num_threads(1)
    facts: dict[str, object] = {"batch": BATCH, "threads": 1, "torch": torch.__version__, "machine": machine_facts([0])}
    for what in (precision, teacher, activations):
        with tempfile.TemporaryDirectory() as folder:
            facts[what.__name__] = found = medians(what(Path(folder)), arguments.rounds)
        print(f"{what.__name__:12s}" + "   ".join(f"{name} {ms:.1f} ms" for name, ms in found.items()), flush=True)
    (ROOT / "results" / "training_cost.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
