"""What the doctor says: one finding for one thing that went wrong in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

FAULT, WASTE = "fault", "waste"


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong.

    kind: its name, one of `KINDS`.  place: the layer, tensor or file.
    what: a sentence that says what is wrong.  cost: what it costs, with numbers.  fix: what to do.
    numbers: the cost as values (shares are 0..1).
    """

    kind: str
    place: str
    what: str
    cost: str
    fix: str
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def severity(self) -> str:
        """ "fault": the answers suffer. "waste": the answers are right, but bytes or time are lost."""
        return KINDS[self.kind]

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {"severity": self.severity, **asdict(self)}


KINDS = {
    "dead-layer": FAULT,
    "empty-filters": FAULT,
    "collapsed-scale": FAULT,
    "scale-sign": FAULT,
    "saturated": FAULT,
    "wide-range": FAULT,
    "dead-channels": FAULT,
    "input-range": FAULT,
    "one-answer": FAULT,
    "dense-layer": WASTE,
    "float-bytes": WASTE,
    "int8-bytes": WASTE,
    "slow-kernel": WASTE,
    "idle-lanes": WASTE,
    "not-run": WASTE,
}
"""Every kind of finding, and its severity."""


_ADDED = {
    "weights": "weights",
    "filters": "filters",
    "channels": "channels",
    "bytes": "bytes",
    "share_of_weights": "of the network's weights",
    "share_of_time": "of an image's time",
}
"""Numbers of a finding that add up over layers, the one that tells the worst layer first."""


@dataclass(frozen=True)
class Group:
    """Findings of one kind, the worst first."""

    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Finding:
        return self.findings[0]

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(finding.place for finding in self.findings)

    @property
    def cost(self) -> str:
        """Of all of them together, as far as costs add up; else of the worst."""
        if len(self.findings) == 1:
            return self.worst.cost
        sums = {key: sum(f.numbers[key] for f in self.findings) for key in _ADDED if key in self.worst.numbers}
        said = [f"{percent(n) if key.startswith('share') else f'{n:,.0f}'} {_ADDED[key]}" for key, n in sums.items()]
        whole = f"{' and '.join(said)} in all; " if said else ""
        return f"{whole}in {self.worst.place} {self.worst.cost}"


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """One group a kind, in the order in which the kinds first come."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return [Group(tuple(sorted(those, key=_size, reverse=True))) for those in kinds.values()]


def _size(finding: Finding) -> float:
    numbers = finding.numbers
    return next((numbers[key] for key in (*_ADDED, "bits_lost") if key in numbers), max(numbers.values(), default=0.0))


def share(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0


def percent(value: float) -> str:
    """A share, readable: 0.4 % and 37 %."""
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"
