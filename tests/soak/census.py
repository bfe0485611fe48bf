"""What a process holds."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple


class Census(NamedTuple):
    """Threads, file descriptors, and memory in MB."""

    threads: int
    descriptors: int
    rss: float


def census() -> Census:
    """What this process holds now, garbage apart."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Census(
        threading.active_count(),
        len(os.listdir("/proc/self/fd")) - 1,  # the listing's own
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


def settled(before: Census, patience: float = 10.0) -> Census:
    """What it holds once threads and descriptors are down to what they were, or patience ends."""
    until = time.monotonic() + patience
    while any(left_behind(before, now := census())) and time.monotonic() < until:
        threading.Event().wait(0.05)
    return now


def left_behind(before: Census, after: Census) -> list[int]:
    """How many threads and descriptors there are more than before."""
    return [max(0, now - then) for now, then in zip(after[:2], before[:2], strict=True)]
