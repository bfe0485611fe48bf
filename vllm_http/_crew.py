"""Worker threads: as many as there is work at once, kept for a moment when it is done.

A thread that waits for its next job takes it in a tenth of the time that a new one needs.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from ._errors import AdapterClosed, CapacityExceeded
from ._threads import deadline_in, join, start_thread, uninterrupted


Job: TypeAlias = Callable[[], None]
"""Does the next of what there is to do, if there is anything: it may be called once too often."""

_KEPT = 0.5
"""Seconds that an idle thread waits for its next job."""

_MOST_IDLE = 8
"""Idle threads that are kept. When hundreds ran out of patience at once, all streams stood still
for 10 ms."""


class Crew:
    """Runs each job on a thread at once. Thread-safe.

    Invariant: there are as many threads that wait, or are about to, as there are jobs in the queue.
    Whoever adds a job looks at it afterwards, and so does whoever leaves the idle ones, by taking a
    job or for good: of two that come together, the later one sees what the earlier has done.
    """

    def __init__(self) -> None:
        self._closed = False
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's threads are not here."""
        self._lock = threading.RLock()  # reentrant: see Slots
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle: set[threading.Thread] = set()
        self._starting = 0  # threads that are not idle yet; under the lock
        self._threads: set[threading.Thread] = set()

    def run(self, job: Job) -> None:
        """Run a job that never raises.

        Raises:
            CapacityExceeded: The system gives no more threads. The job may still run, late.
        """
        self._jobs.put(job)  # one step: a signal handler finds it in the queue or not
        if self._jobs.qsize() > len(self._idle):
            uninterrupted(self._reinforce)

    def _reinforce(self) -> None:
        """Start a thread if there are more jobs than threads for them."""
        with self._lock:
            if self._jobs.qsize() <= len(self._idle) + self._starting:
                return
            self._starting += 1
            try:
                self._threads.add(start_thread("worker", self._work))
            except BaseException:
                self._starting -= 1
                raise

    def _work(self) -> None:
        """A thread's body."""
        me = threading.current_thread()
        with self._lock:
            self._idle.add(me)
            self._starting -= 1
        while (job := self._next(me)) is not None:
            job()
            del job  # it may hold the last reference to the adapter
            self._idle.add(me)
        with self._lock:
            if not self._closed:  # `close` waits for it to its very end
                self._threads.discard(me)

    def _next(self, me: threading.Thread) -> Job | None:
        """The next job of a thread that is idle; None if it is to go. It is idle no more then."""
        while True:
            spare = self._closed or len(self._idle) > _MOST_IDLE
            try:
                job = self._jobs.get(timeout=0.0 if spare else _KEPT)
            except queue.Empty:
                if self._may_go(me):
                    return None
                continue
            self._idle.discard(me)
            if self._jobs.qsize() > len(self._idle):
                with contextlib.suppress(CapacityExceeded, AdapterClosed):  # it waits for us then
                    self._reinforce()
            return job

    def _may_go(self, me: threading.Thread) -> bool:
        with self._lock:
            self._idle.discard(me)
            if self._jobs.qsize() > len(self._idle) + self._starting:
                self._idle.add(me)
                return False
            if self._closed and self._idle:
                self._jobs.put(_look_again)
            return True

    def close(self, timeout: float) -> None:
        """Let the threads go as they finish, and wait for them, at most so many seconds."""
        deadline = deadline_in(timeout)
        self._closed = True
        # Without the lock: the main thread must not hold it where a signal handler may start a job.
        while others := self._at_work():
            self._jobs.put(_look_again)  # each passes it on
            for thread in others:
                join(thread, deadline)
            if any(thread.is_alive() for thread in others):
                return

    def _at_work(self) -> list[threading.Thread]:
        others = self._threads - {threading.current_thread()}
        return [thread for thread in others if thread.is_alive()]


def _look_again() -> None:
    """The job of an idle thread that is to see that all is closed."""
