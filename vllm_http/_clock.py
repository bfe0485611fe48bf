"""All alarms of an adapter, on one thread.

A blocked worker cannot watch its own clocks: a socket timeout starts anew with each byte, so SSE
comments or headers that drip in would keep a dead stream alive, and a task that waits for its turn
has no thread at all. So the clocks of all tasks are alarms in one heap, and what rings ends the
stream and shuts the socket down.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeAlias

from ._threads import start_thread


logger = logging.getLogger("vllm_http")

Ring: TypeAlias = Callable[[float], "float | None"]
"""Called with the time; returns when to call again, or None."""

_FEW = 1024
"""Alarms that are kept without asking which of them belong to tasks that are long over."""

_Alarm: TypeAlias = "tuple[float, int, Callable[[], Ring | None]]"


class Clock:
    """Rings alarms at their time (`time.monotonic`), on a thread that the first one starts.

    All methods may be called from any thread, `soon` from a finalizer too: a SimpleQueue takes
    messages without a lock, so that a garbage collection inside one of our own locks cannot
    deadlock on it.
    """

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[_Alarm | None] = queue.SimpleQueue()
        self._order = itertools.count()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread running. Must precede the first alarm.

        Raises:
            CapacityExceeded: No thread is to be had.
        """
        with self._lock:
            if self._thread is None:
                self._thread = start_thread("clock", _run, self._inbox)
                # The thread holds the inbox only: a forgotten clock stops by itself.
                weakref.finalize(self, self._inbox.put, None).atexit = False

    def at(self, when: float, ring: Ring) -> None:
        """Call a bound method at that time, unless its object is gone by then."""
        self._inbox.put((when, next(self._order), weakref.WeakMethod(ring)))

    def soon(self, call: Callable[[], None]) -> None:
        """Call something on the clock's thread, now."""

        def ring(now: float) -> None:
            call()

        self._inbox.put((0.0, next(self._order), lambda: ring))

    def stop(self, timeout: float) -> None:
        """End the thread, waiting at most that many seconds for it."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)


def _run(inbox: queue.SimpleQueue[_Alarm | None]) -> None:
    """The thread: blocks on the inbox only, until the next alarm or message."""
    heap: list[_Alarm] = []
    room = _FEW
    while True:
        wait = max(0.0, heap[0][0] - time.monotonic()) if heap else threading.TIMEOUT_MAX
        with contextlib.suppress(queue.Empty):
            alarm = inbox.get(timeout=min(wait, threading.TIMEOUT_MAX))
            if alarm is None:
                return
            heapq.heappush(heap, alarm)
            del alarm  # it may hold the last reference to a task, and that to this very clock
        if len(heap) > room:
            heap = [alarm for alarm in heap if alarm[2]() is not None]
            heapq.heapify(heap)
            room = max(_FEW, 2 * len(heap))
        _ring_due(heap)


def _ring_due(heap: list[_Alarm]) -> None:
    while heap and heap[0][0] <= time.monotonic():
        _, order, reference = heapq.heappop(heap)
        ring = reference()
        if ring is None:
            continue
        try:
            again = ring(time.monotonic())
        except Exception:  # one task's bug must not stop the clocks of all others
            logger.exception("an alarm failed")
            continue
        if again is not None:
            heapq.heappush(heap, (again, order, reference))
