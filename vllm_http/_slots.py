"""Admission: so many tasks run; so many wait, in order; no more."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable

from ._crew import Crew
from ._errors import AdapterClosed, CapacityExceeded, InvalidRequest, shown
from ._record import is_logged, log_end
from ._run import Run


class Slots:
    """The live tasks of an adapter and the threads that open them. Thread-safe.

    Args:
        max_concurrency: Tasks that run at once, until their connections are free again.
        max_pending: Tasks that wait for one of those.
        serve: Opens one task on a thread of its own; `release` follows in the end. Never raises.
    """

    def __init__(
        self, max_concurrency: int, max_pending: int, serve: Callable[[Run], None]
    ) -> None:
        self._max_concurrency = max_concurrency
        self._max_pending = max_pending
        self._serve = serve
        self._live: dict[str, Run] = {}
        self._closed = False
        self._crew = Crew()
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
        self._running: set[Run] = set()
        self._crew._forget_in_child()

    @property
    def running(self) -> int:
        """Tasks that hold a place."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Tasks that wait for one."""
        return len(self._waiting)

    def admit(self, run: Run) -> None:
        """Give the task a thread, or let it wait for one.

        Raises:
            AdapterClosed: `close` was called.
            InvalidRequest: Its job_id is live.
            CapacityExceeded: Too many run and wait, or the system gives no more threads.
        """
        with self._lock:
            self._check(run)
            if len(self._running) < self._max_concurrency:
                self._start(run)
            else:
                self._waiting[run.job_id] = run
                run.wait_for_turn()
            self._live[run.job_id] = self._known[run.job_id] = run

    def _check(self, run: Run) -> None:
        self.check_open()
        # What is over counts no more: its End is seen a moment before it leaves.
        known = self._live.get(run.job_id)
        if known is not None and not known.over:
            raise InvalidRequest(f"job_id: {shown(run.job_id)} is live already", job_id=run.job_id)
        # By tasks that live: one that runs outlives its stream by the end of its body.
        room = self._max_concurrency + self._max_pending
        if len(self._live) >= room and sum(not one.over for one in self._live.values()) >= room:
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

    def _start(self, run: Run) -> None:
        self._crew.run(functools.partial(self._serve, run))
        self._running.add(run)

    def release(self, run: Run) -> None:
        """A task that ran holds on to the engine no more: its place goes to the next."""
        with self._lock:
            self._running.discard(run)
            # Not for a task that `close` is about to end.
            while not self._closed and self._waiting and len(self._running) < self._max_concurrency:
                self._start_next()
        self._log(run)

    def _start_next(self) -> None:
        run = self._waiting.pop(next(iter(self._waiting)))
        try:
            self._start(run)
        except CapacityExceeded as error:
            run.fail(error)
            self._log(run)

    def _log(self, run: Run) -> None:
        """On a thread that may be kept waiting by the application's handlers."""
        if is_logged(run):
            try:
                self._crew.run(functools.partial(log_end, run))
            except CapacityExceeded:
                log_end(run)

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
            self._log(run)  # nobody will release it

    def close(self) -> list[Run]:
        """Admit nothing more; the tasks that are live."""
        with self._lock:
            self._closed = True
            return list(self._live.values())

    def join(self, timeout: float) -> None:
        """Wait for the worker threads, at most so many seconds."""
        self._crew.close(timeout)
