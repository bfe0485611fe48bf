"""Worker threads: as many as there is work at once, kept for a moment when it is done.

A thread that waits for its next job takes it in a tenth of the time that a new one needs.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

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

    A thread that is idle offers a place. Whoever has a job takes a place and leaves the job in the
    queue, or has a thread started for it where there is none. Each of these steps is whole by
    itself, so that a signal handler's exception between two of them costs a place at most, which
    the idle thread then offers anew.

    Invariant: no more jobs are in the queue than threads are idle.
    """

    def __init__(self) -> None:
        self._closed = False
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's threads are not here."""
        self._lock = threading.RLock()  # reentrant: see Slots
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._places: deque[None] = deque()
        self._idle: set[threading.Thread] = set()  # those that wait, promised a job or not
        self._threads: set[threading.Thread] = set()

    def run(self, job: Job) -> None:
        """Run a job that never raises.

        Raises:
            CapacityExceeded: The system gives no more threads.
        """
        if self._take_place():
            self._jobs.put(job)
            # After the line above: whoever offered the place leaves once `close` was called, and
            # looks what is in the queue before; or another does.
            if not self._closed:
                return
            job = _look_again
        uninterrupted(functools.partial(self._start, job))

    def _take_place(self) -> bool:
        try:
            self._places.pop()
        except IndexError:
            return False
        return True

    def _start(self, job: Job) -> None:
        # In a list, to be taken out: a thread keeps its arguments for as long as it lives.
        with self._lock:
            self._threads.add(start_thread("worker", self._work, [job]))

    def _work(self, first: list[Job]) -> None:
        """A thread's body."""
        me = threading.current_thread()
        job: Job | None = first.pop()
        while job is not None:
            job()
            del job  # it may hold the last reference to the adapter
            job = self._next(me)
        with self._lock:
            if not self._closed:  # `close` waits for it to its very end
                self._threads.discard(me)

    def _next(self, me: threading.Thread) -> Job | None:
        if self._closed:
            return self._left_job()
        if len(self._idle) >= _MOST_IDLE:
            return None
        self._idle.add(me)
        self._places.append(None)
        try:
            return self._wait()
        finally:
            self._idle.discard(me)

    def _left_job(self) -> Job | None:
        """What was put into the queue before all threads have gone; what wakes others stays."""
        job, others = None, 0
        with contextlib.suppress(queue.Empty):
            while (job := self._jobs.get_nowait()) is _look_again:
                others += 1
        for _ in range(others):
            self._jobs.put(_look_again)
        return None if job is _look_again else job

    def _wait(self) -> Job | None:
        """The job of a thread that has offered a place; None once it has taken that back."""
        promised = False
        while True:
            # After the place was offered: `close` takes it, or came before.
            try:
                return self._jobs.get(timeout=0.0 if self._closed else _KEPT)
            except queue.Empty:
                if self._take_place():
                    return None
            # Promised a moment ago; or whoever did so was interrupted, and no job will come. If one
            # does after all, it waits until this thread, or another, is idle.
            if promised:
                self._places.append(None)
            promised = True

    def close(self, timeout: float) -> None:
        """Let the threads go as they finish, and wait for them, at most so many seconds."""
        deadline = deadline_in(timeout)
        self._closed = True
        while others := self._at_work():
            for _ in others:
                self._jobs.put(_look_again)
            for thread in others:
                join(thread, deadline)
            if any(thread.is_alive() for thread in others):
                return

    def _at_work(self) -> list[threading.Thread]:
        # Without the lock: the main thread must not hold it where a signal handler may start a job.
        others = self._threads - {threading.current_thread()}
        return [thread for thread in others if thread.is_alive()]


def _look_again() -> None:
    """The job of an idle thread that is to see that all is closed."""
