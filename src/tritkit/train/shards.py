"""A network in shards (FSDP): each process keeps its part of every weight, gradient and average of the optimizer, and a
layer's weight is whole only while the layer computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tritkit.train.parallel import Build, Parallel
from tritkit.train.synchronised import separate_, synchronise_

_Parameters = dict[str, nn.Parameter]


class Shards(Parallel):
    """Calls a network that it cuts in shards. `optimizer` has the shards in place of the parameters then."""

    sharded = True

    def spread(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if net is self._call:
            return
        synchronise_(net)
        net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP takes no other
        before = dict(net.named_parameters())
        for module in list(net.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                fully_shard(module)
        fully_shard(net)  # what is in no layer, such as batch norms
        _exchange(optimizer, before, dict(net.named_parameters()), _part)
        self._call = net

    @contextmanager
    def alone(self) -> Iterator[None]:
        assert isinstance(self._call, FSDPModule)
        self._call.set_requires_gradient_sync(False)
        yield
        self._call.set_requires_gradient_sync(True)

    @contextmanager
    def whole(self, net: nn.Module) -> Iterator[None]:
        shards = [module for module in net.modules() if isinstance(module, FSDPModule)]
        for module in shards:  # forward passes must not ask the others: processes may have more or fewer to make
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        yield
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(True, recurse=False)

    def state(self, state: Any) -> Any:
        if isinstance(state, dict):
            return {key: self.state(value) for key, value in state.items()}
        return _all(state)

    def gather(self, net: nn.Module, optimizer: torch.optim.Optimizer, build: Build) -> nn.Module:
        if not isinstance(net, FSDPModule):
            return net
        separate_(net)
        plain = build(self.state(net.state_dict()))
        _exchange(optimizer, dict(net.named_parameters()), dict(plain.named_parameters()), lambda value, _: _all(value))
        return plain


def _all(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _part(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """This process's part of a tensor that has a number for each weight; others, such as Adam's steps, as they are."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _exchange(
    optimizer: torch.optim.Optimizer,
    before: _Parameters,
    after: _Parameters,
    convert: Callable[[Tensor, nn.Parameter], Tensor],
) -> None:
    """Put the parameters `after` into `optimizer` in the places of those of the same names, with their averages."""
    new = {id(parameter): after[name] for name, parameter in before.items()}
    states = {new[id(old)]: state for old, state in optimizer.state.items()}
    for group in optimizer.param_groups:
        group["params"] = [new[id(old)] for old in group["params"]]
    optimizer.state.clear()
    for parameter, state in states.items():
        optimizer.state[parameter] = {
            key: convert(value, parameter) if isinstance(value, Tensor) else value for key, value in state.items()
        }
