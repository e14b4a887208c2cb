"""A run has deterministic algorithms and random numbers of its own; the caller's are as they were afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def own_random(device: torch.device) -> Any:
    """Random states that are the caller's again afterwards."""
    return torch.random.fork_rng(devices=[] if device.type == "cpu" else [device])


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """PyTorch's deterministic algorithms, without filling fresh memory; as it was afterwards. On a GPU a few operations
    have none; PyTorch warns of them.
    """
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
