"""Worker threads: as many as there is work at once, kept for a moment when it is done.

A thread that waits for its next job takes it in a tenth of the time that a new one needs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from ._threads import start_thread


Job: TypeAlias = Callable[[], None]

_KEPT = 0.5
"""Seconds that an idle thread waits for its next job."""

_MOST_IDLE = 8
"""Idle threads that are kept. When hundreds ran out of patience at once, all streams stood still
for 10 ms."""


class Crew:
    """Runs each job on a thread at once. Thread-safe."""

    def __init__(self) -> None:
        self._closed = False
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's threads are not here."""
        self._lock = threading.RLock()  # reentrant: see Slots
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle = 0  # threads that wait, and were promised no job yet
        self._threads: set[threading.Thread] = set()

    def run(self, job: Job) -> None:
        """Run a job that never raises.

        Raises:
            CapacityExceeded: The system gives no more threads.
        """
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._jobs.put(job)
            else:
                # In a list, to be taken out: a thread keeps its arguments for as long as it lives.
                self._threads.add(start_thread("worker", self._work, [job]))

    def _work(self, first: list[Job]) -> None:
        """A thread's body."""
        job: Job | None = first.pop()
        while job is not None:
            job()
            del job  # it may hold the last reference to the adapter
            job = self._next()
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _next(self) -> Job | None:
        with self._lock:
            if self._closed or self._idle == _MOST_IDLE:
                return None
            self._idle += 1
        while True:
            try:
                return self._jobs.get(timeout=_KEPT)
            except queue.Empty:
                with self._lock:
                    if self._idle:
                        self._idle -= 1
                        return None
            # Promised in this very moment. A thread that has just become idle may take it first,
            # and this one then leaves in its place.

    def close(self, timeout: float) -> None:
        """Let the threads go as they finish, and wait for them, at most so many seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._jobs.put(None)
            self._idle = 0
        while (thread := self._one_at_work()) is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return

    def _one_at_work(self) -> threading.Thread | None:
        with self._lock:
            others = self._threads - {threading.current_thread()}
        return next((thread for thread in others if thread.is_alive()), None)
