"""Admission: so many tasks run, each on a thread; so many wait, in order; no more."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from ._errors import AdapterClosed, CapacityExceeded, InvalidRequest, shown
from ._record import log_end
from ._run import Run
from ._threads import start_thread


class Slots:
    """The live tasks of an adapter and the threads that serve them. Thread-safe.

    Args:
        max_concurrency: Tasks that run at once, each on a thread of its own.
        max_pending: Tasks that wait for one of those.
        serve: Takes one task to its end; never raises.
    """

    def __init__(
        self, max_concurrency: int, max_pending: int, serve: Callable[[Run], None]
    ) -> None:
        self._max_concurrency = max_concurrency
        self._max_pending = max_pending
        self._serve = serve
        self._live: dict[str, Run] = {}
        self._closed = False
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's tasks and threads are not here."""
        for run in self._live.values():
            run._forget_in_child()
        # Reentrant: a garbage collection inside may close another stream, which comes here.
        self._lock = threading.RLock()
        self._live = {}
        self._known: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
        self._waiting: dict[str, Run] = {}
        self._threads: set[threading.Thread] = set()

    def admit(self, run: Run) -> None:
        """Give the task a thread, or let it wait for one.

        Raises:
            AdapterClosed: `close` was called.
            InvalidRequest: Its job_id is live.
            CapacityExceeded: Too many run and wait, or the system gives no more threads.
        """
        with self._lock:
            self._check(run)
            if len(self._threads) < self._max_concurrency:
                self._threads.add(start_thread("worker", self._work, run))
            else:
                self._waiting[run.job_id] = run
                run.wait_for_turn()
            self._live[run.job_id] = self._known[run.job_id] = run

    def _check(self, run: Run) -> None:
        self.check_open()
        if run.job_id in self._live:
            raise InvalidRequest(f"job_id: {shown(run.job_id)} is live already", job_id=run.job_id)
        # By tasks and not by threads: a thread outlives its task by the draining of the body.
        if len(self._live) >= self._max_concurrency + self._max_pending:
            raise CapacityExceeded(
                f"max_concurrency {self._max_concurrency} tasks run and "
                f"max_pending {self._max_pending} wait",
                job_id=run.job_id,
            )

    def check_open(self) -> None:
        """Refuse early.

        Raises:
            AdapterClosed: `close` was called.
        """
        if self._closed:
            raise AdapterClosed("the adapter is closed")

    def _work(self, run: Run | None) -> None:
        """The body of a worker thread."""
        while run is not None:
            self._serve(run)
            log_end(run)
            run = self._next()

    def _next(self) -> Run | None:
        with self._lock:
            while self._waiting:
                run = self._waiting.pop(next(iter(self._waiting), ""), None)
                if run is not None:
                    return run
            self._threads.discard(threading.current_thread())
            return None

    def find(self, job_id: str) -> Run | None:
        """The task of that id, live or with events that its caller may still take."""
        with self._lock:
            return self._known.get(job_id)

    def leave(self, run: Run) -> None:
        """The task's stream is over: its id is free, and so is its place if it waited."""
        with self._lock:
            if self._live.get(run.job_id) is run:
                del self._live[run.job_id]
            waited = self._waiting.get(run.job_id) is run
            if waited:
                del self._waiting[run.job_id]
        if waited:
            log_end(run)  # no worker will

    def close(self) -> list[Run]:
        """Admit nothing more; the tasks that are live."""
        with self._lock:
            self._closed = True
            return list(self._live.values())

    def join(self, timeout: float) -> None:
        """Wait for the worker threads, at most so many seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
