"""One process of a job: torchrun --nproc-per-node N distributed_worker.py OUT RECIPE_JSON [ACCUMULATE [RANK STEP]].

Trains on the images of tiny.py. At step STEP process RANK ends itself as a power cut would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from tiny import images, recipe

from tritkit.errors import TritkitError
from tritkit.train import Silent, loop, train_on


def kill_at(rank: int, step: int) -> None:
    plain = loop._Run._step

    def stepping(run: loop._Run, x: torch.Tensor, y: torch.Tensor) -> None:
        plain(run, x, y)
        if run.ranks.rank == rank and run.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    loop._Run._step = stepping  # type: ignore[method-assign]


def main(out: str, changes: str, accumulate: str = "1", *kill: str) -> int:
    torch.set_num_threads(1)
    if kill:
        kill_at(int(kill[0]), int(kill[1]))
    try:
        given = images(256, 0), images(64, 1)
        train_on(recipe(**json.loads(changes)), *given, Path(out), True, Silent(), accumulate=int(accumulate))
    except TritkitError as error:
        sys.stderr.write(f"said: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
