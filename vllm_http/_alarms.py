"""Alarms in a heap: the clocks of all tasks of an adapter. No thread, no I/O.

A socket timeout starts anew with each byte, so SSE comments or headers that drip in would keep a
dead stream alive, and a task that waits for its turn has no thread at all. So all clocks are alarms
that the reader's thread rings, and what rings ends the stream.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias


logger = logging.getLogger("vllm_http")

Ring: TypeAlias = Callable[[float], "float | None"]
"""A bound method, called with the time; returns when to call again, or None."""

Reference: TypeAlias = "tuple[weakref.ref[object], Callable[..., Any]]"
"""To a bound method, which it does not keep alive: its object and its function.

No `weakref.WeakMethod`: that runs Python code when its object dies, as a rule on the caller's
thread, and an interrupt that came just then would be swallowed there.
"""


def reference_to(method: Callable[..., object]) -> Reference:
    """A reference to a bound method."""
    return weakref.ref(method.__self__), method.__func__  # type: ignore[attr-defined]


_FEW = 1024
"""Alarms that are kept without asking which of them belong to tasks that are long over."""


class Alarms:
    """For one thread. An alarm keeps nothing alive: what is gone does not ring."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Reference]] = []
        self._order = itertools.count()
        self._room = _FEW

    @property
    def next(self) -> float:
        """When the next one is due, as `time.monotonic` counts; infinity without any."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, when: float, ring: Reference) -> None:
        """Have a bound method called at that time."""
        heapq.heappush(self._heap, (when, next(self._order), ring))
        if len(self._heap) > self._room:
            self._heap = [alarm for alarm in self._heap if alarm[2][0]() is not None]
            heapq.heapify(self._heap)
            self._room = max(_FEW, 2 * len(self._heap))

    def ring_due(self) -> None:
        """Ring all whose time has come."""
        while self._heap and self._heap[0][0] <= time.monotonic():
            _, order, reference = heapq.heappop(self._heap)
            thing = reference[0]()
            if thing is None:
                continue
            try:
                again = reference[1](thing, time.monotonic())
            except Exception:  # one task's bug must not stop the clocks of all others
                with contextlib.suppress(Exception):  # an application's handler may raise, too
                    logger.exception("an alarm failed")
                continue
            if again is not None:
                heapq.heappush(self._heap, (again, order, reference))
