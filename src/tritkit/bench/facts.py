"""The machine a measurement was made on, and how quiet it was."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def machine_facts(cpus: Sequence[int]) -> dict[str, Any]:
    """CPU, caches of the first CPU used, system, load of the last minute, share of time the hypervisor took (0..1)."""
    return {
        "cpu": cpu_name(),
        "cpus_used": list(cpus),
        "cpus": os.cpu_count(),
        "caches": _caches(cpus[0]),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[0], 2),
        "stolen": _stolen(),
    }


def cpu_name() -> str:
    """Model name with family and model number, which name the microarchitecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts['cpu family']} model {facts['model']})" if "cpu family" in facts else name


def _caches(cpu: int) -> dict[str, str]:
    found = {}
    for folder in sorted(Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind.lower()}"] = size
    return found


def _stolen() -> float | None:
    """Since the machine started."""
    try:
        times = [float(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    total = sum(times)
    return times[7] / total if len(times) == 8 and total else None
