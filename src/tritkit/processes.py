"""Processes that each look at a share of some images, and put together what they found.

`Alone` is this process by itself, the default wherever `Processes` are asked for; `tritkit.train.ranks` has those of a
job of torchrun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Processes(Protocol):
    """Number `rank` of some processes, in the order of their shares. All must make the same calls."""

    @property
    def rank(self) -> int: ...

    def gather(self, mine: list[T]) -> list[T]:
        """The rows of all processes."""

    def total(self, mine: Tensor) -> Tensor:
        """The sum over all processes, element by element: the same bits in each."""


class Alone:
    """One process, whose share is everything."""

    rank = 0

    def gather(self, mine: list[T]) -> list[T]:
        return mine

    def total(self, mine: Tensor) -> Tensor:
        return mine


ALONE: Processes = Alone()
