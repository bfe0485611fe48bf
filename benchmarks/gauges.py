"""What a process can say about itself."""

from __future__ import annotations

import array
import itertools
import resource
from typing import Any


Figures = dict[str, Any]
"""What was measured, by the names that report.py explains."""


def cpu() -> float:
    """User and system seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def status(key: str) -> int:
    """A number of /proc/self/status, such as VmRSS (KiB) or Threads."""
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(key + ":"):
                return int(line.split()[1])
    raise KeyError(key)


def percentile(values: list[int], share: float) -> float:
    """The value below which that share of the sorted values lies; nan of none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def vllm_terms(arrivals: list[array.array[int]]) -> Figures:
    """ITL and TPOT as `vllm bench serve` defines them, from each stream's times of arrival (ns)."""
    gaps = sorted(b - a for times in arrivals for a, b in itertools.pairwise(times))
    each = sorted(
        (times[-1] - times[0]) // (len(times) - 1) for times in arrivals if len(times) > 1
    )
    return {
        "itl_p50_ms": percentile(gaps, 0.5) / 1e6,
        "itl_p99_ms": percentile(gaps, 0.99) / 1e6,
        "tpot_p50_ms": percentile(each, 0.5) / 1e6,
    }
