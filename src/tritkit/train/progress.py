"""What a run tells while it goes: a bar on a terminal, a line an epoch elsewhere, or nothing."""

from __future__ import annotations

from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """What the training loop calls."""

    def start(self, done: int, total: int) -> None:
        """Training begins after `done` of `total` steps."""

    def step(self, done: int) -> None:
        """`done` steps are finished."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch's row of the record."""

    def stop(self) -> None:
        """Training is over, finished or not."""


class Silent:
    """Tells nothing."""

    def start(self, done: int, total: int) -> None: ...
    def step(self, done: int) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...
    def stop(self) -> None: ...


class ConsoleReporter:
    """A progress bar on a terminal; in any case a line an epoch. Standard error unless told otherwise."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        silent = not self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, transient=True, disable=silent)
        self._task = self._bar.add_task("training", total=None)

    def start(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
        self._bar.start()

    def step(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def epoch(self, row: dict[str, Any]) -> None:
        held_out = "" if row["held_out_error"] is None else f"  held-out error {row['held_out_error']:6.2%}"
        self._console.print(
            f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  train error {row['train_error']:6.2%}{held_out}"
            f"  lr {row['lr']:.4f}  {row['seconds']:.0f} s",
            highlight=False,
        )
        if row.get("skipped"):
            reasons = row["skipped"]
            said = f"{len(reasons)} pictures left out: {'; '.join(reasons[:3])}"
            self._console.print(said, markup=False, highlight=False)

    def stop(self) -> None:
        self._bar.stop()
