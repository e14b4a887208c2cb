"""Where the network of a run lies: in this process alone, whole in each process (DDP), or in shards (see `shards`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tritkit.train.ranks import Ranks
from tritkit.train.synchronised import separate_, synchronise_

Build = Callable[[dict[str, Tensor]], nn.Module]
"""From a state dict to the network of it."""


class Parallel:
    """Calls a network such that its gradients become the averages over all processes. Each has all of it."""

    sharded = False

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._call: nn.Module | None = None
        self._trained: tuple[int, ...] = ()

    def __call__(self, images: Tensor) -> Tensor:
        assert self._call is not None
        logits: Tensor = self._call(images)
        return logits

    def spread(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Train the network of now. Call it again when another one, or other parameters of it, are trained."""
        trained = (id(net), *(id(p) for p in net.parameters() if p.requires_grad))
        if self.ranks.world == 1:
            self._call = net
        elif trained != self._trained:
            synchronise_(net)
            self._call = net  # let the old one go before the new one hooks the same parameters
            self._call = DistributedDataParallel(net)
            self._trained = trained

    def alone(self) -> AbstractContextManager[None]:
        """Backward passes that leave the other processes' gradients for later."""
        return self._call.no_sync() if isinstance(self._call, DistributedDataParallel) else nullcontext()

    def whole(self, net: nn.Module) -> AbstractContextManager[None]:
        """All weights are whole meanwhile, to read and to compute with. What is written to them may be lost."""
        return nullcontext()

    def state(self, state: Any) -> Any:
        """A state dict of the network or the optimizer with whole tensors. All processes must ask for it."""
        return state

    def gather(self, net: nn.Module, optimizer: torch.optim.Optimizer, build: Build) -> nn.Module:
        """The network in one piece in each process, and `optimizer` with it."""
        separate_(net)
        return net


def parallel(ranks: Ranks, shard: bool) -> Parallel:
    """How `ranks` train together."""
    if not shard or ranks.world == 1:
        return Parallel(ranks)
    from tritkit.train.shards import Shards  # PyTorch's part of it takes half a second to import

    return Shards(ranks)
