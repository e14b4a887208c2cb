"""A run small enough for tests: 256 images with a learnable rule, a ResNet-8. Run as a program, it kills itself.

python tiny.py OUT KILL_AT_STEP RECIPE_JSON
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tritkit.data import ImageSet
from tritkit.train import Recipe, RunResult, Silent, make_recipe, train_on

TERNARY = {
    "method": {"name": "ttq", "init": "data", "latent_gradient": "straight-through"},
    "scale_lr": 1e-4,
    "activations": {"from_epoch": 2, "calibration_images": 64, "freeze_epoch": 3},
    "freeze_codes_epoch": 3,
    "snap_scales": True,
    "bn_images": 64,
}


def images(n: int, seed: int) -> ImageSet:
    """Noise whose brightness tells the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (n,), generator=generator)
    noise = torch.randint(0, 40, (n, 3, 32, 32), generator=generator)
    return ImageSet((noise + labels.view(-1, 1, 1, 1) * 20).to(torch.uint8), labels, tuple("abcdefghij"))


def recipe(**changes: Any) -> Recipe:
    base = {"name": "tiny", "model": "cifar-resnet8", "epochs": 3, "batch_size": 32, "lr": 0.05, "checkpoint_every": 3}
    return make_recipe({**base, "schedule": {"name": "cosine", "warmup_epochs": 1}, **changes})


def run(out: Path, changes: dict[str, Any], reporter: Any = None, resume: bool = True, **how: Any) -> RunResult:
    torch.set_num_threads(1)
    given = images(256, 0), images(64, 1)
    return train_on(recipe(**changes), *given, out, resume, reporter or Silent(), **how)


class _Killer(Silent):
    """Ends the process as a power cut would, right after step `at`."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, done: int) -> None:
        if done == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[3]), _Killer(int(sys.argv[2])))
