"""How much else the machine did: what a reader of the tails wants to know."""

from __future__ import annotations

import os
import resource
import time


_TICKS = os.sysconf("SC_CLK_TCK")


class Noise:
    """CPU that went neither to our children nor to the server since this was made."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._start = time.perf_counter()
        self._before = self._others()

    def cores(self) -> float:
        """Of others, on average."""
        return max(0.0, (self._others() - self._before) / (time.perf_counter() - self._start))

    def _others(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = children.ru_utime + children.ru_stime + _process(self._server)
        return _machine() - ours


def _machine() -> float:
    """Busy seconds of all cores, those that a hypervisor took included."""
    with open("/proc/stat", encoding="ascii") as lines:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
            int, lines.readline().split()[1:]
        )
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _process(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as line:
        fields = line.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
