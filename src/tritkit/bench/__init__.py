"""The measuring bench: our engine and its peers, timed in turn on the same network, images, threads and CPUs.

    facts = run(Plan(network="resnet20", batches=(1,), threads=2))

Every engine has a process of its own, pinned to the same CPUs, and sleeps (stopped by signal) while another one is
timed. What an engine computes is checked before it is timed. docs/performance.md says how the numbers are made.
"""

from __future__ import annotations

from tritkit.bench.plan import Plan
from tritkit.bench.running import run

__all__ = ["Plan", "run"]
