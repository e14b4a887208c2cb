"""One process of a job: torchrun --nproc-per-node N distributed_worker.py OUT RECIPE_JSON [HOW_JSON [RANK STEP]].

Trains on the images of tiny.py; HOW are further arguments of `train_on`. At step STEP process RANK ends itself as a
power cut would. In shards each process tells what it holds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from tiny import images, recipe
from torch.distributed.tensor import DTensor

from tritkit.errors import TritkitError
from tritkit.train import Silent, loop, train_on


def kill_at(rank: int, step: int) -> None:
    plain = loop._Run._step

    def stepping(run: loop._Run, x: torch.Tensor, y: torch.Tensor) -> None:
        plain(run, x, y)
        if run.ranks.rank == rank and run.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    loop._Run._step = stepping  # type: ignore[method-assign]


def tell_what_is_held() -> None:
    """At each step, how many numbers of the network and the optimizer are in this process, on standard error."""
    plain = loop._Run._step

    def local(value: torch.Tensor) -> int:
        return (value.to_local() if isinstance(value, DTensor) else value).numel()

    def stepping(run: loop._Run, x: torch.Tensor, y: torch.Tensor) -> None:
        plain(run, x, y)
        states = [value for state in run.optimizer.state.values() for value in state.values()]
        held = [*run.net.parameters(), *(value for value in states if isinstance(value, torch.Tensor))]
        sys.stderr.write(f"held: {sum(map(local, held))}\n")

    loop._Run._step = stepping  # type: ignore[method-assign]


def main(out: str, changes: str, how: str = "{}", *kill: str) -> int:
    torch.set_num_threads(1)
    chosen = json.loads(how)
    if "shard" in chosen:
        tell_what_is_held()
    if kill:
        kill_at(int(kill[0]), int(kill[1]))
    try:
        given = images(256, 0), images(64, 1)
        train_on(recipe(**json.loads(changes)), *given, Path(out), True, Silent(), **chosen)
    except TritkitError as error:
        sys.stderr.write(f"said: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
