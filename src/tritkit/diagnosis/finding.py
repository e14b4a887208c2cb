"""What the doctor says: one finding for one thing that went wrong in one place."""

from __future__ import annotations

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


def share(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0


def percent(value: float) -> str:
    """A share, readable: 0.4 % and 37 %."""
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"
