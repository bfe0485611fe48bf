"""Admission: so many tasks run; so many wait, in order; no more."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable

from ._crew import Crew
from ._errors import AdapterClosed, CapacityExceeded, InvalidRequest, shown
from ._reader import Loop, Reader
from ._record import is_logged, log_end
from ._run import Run
from ._threads import check_not_finalizing


_FEW = 1024
"""Tasks whose ids are kept without asking which of them are gone."""


class Slots:
    """The live tasks of an adapter and the threads that open them. Thread-safe.

    A task is live from `admit` until its stream is over. It waits until a worker thread takes it,
    and then runs until nothing of it holds on to the engine. `admit` may be broken off between any
    two steps by a signal handler that raises; the task's `abandon` then leaves nothing of it here.
    So all that `admit` does to these collections is to put the task in; what must happen as one is
    left to the worker threads, which no signal handler interrupts.

    Invariant: as many jobs are with the crew as tasks wait for which there is a place, or more.

    Args:
        max_concurrency: Tasks that run at once, until their connections are free again.
        max_pending: Tasks that wait for one of those.
        serve: Opens one task on the thread that calls it; `release` follows in the end. Never
            raises.

    Attributes:
        reader: Of this process. Here it lives as long as any task does, each of which knows us.
    """

    reader: Reader

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
        # References to what is gone are swept now and then: a WeakValueDictionary runs Python code
        # when a task dies, and an interrupt that came just then would be swallowed there.
        self._known: dict[str, weakref.ref[Run]] = {}
        self._sweep_at = _FEW
        self._waiting: OrderedDict[Run, None] = OrderedDict()
        self._running: set[Run] = set()
        self._unlogged: deque[Run] = deque()
        self._crew._forget_in_child()

    @property
    def running(self) -> int:
        """Tasks that have a place."""
        return min(self._tasks(), self._max_concurrency)

    @property
    def waiting(self) -> int:
        """Tasks that wait for one."""
        return max(0, self._tasks() - self._max_concurrency)

    def _tasks(self) -> int:
        with self._lock:  # a task that is taken is in neither for a moment
            return len(self._running) + len(self._waiting)

    def admit(self, run: Run) -> None:
        """Have a thread open the task, now or when its turn has come.

        Whatever this raises, the caller has `run.abandon` called.

        Raises:
            AdapterClosed: `close` was called.
            InvalidRequest: Its job_id is live.
            CapacityExceeded: Too many run and wait, or the system gives no more threads.
        """
        with self._lock:
            self.check_room(run.job_id)
            known = self._live.get(run.job_id)
            if known is not None and not known.over:
                message = f"job_id: {shown(run.job_id)} is live already"
                raise InvalidRequest(message, job_id=run.job_id)
            has_place = self._tasks() < self._max_concurrency
            if not has_place:
                run.wait_for_turn()
            self._know(run)
            self._live[run.job_id] = run
            self._waiting[run] = None
        # After the lines above: `close` either finds the task or was called before.
        self.check_open()
        if has_place:
            self._crew.run(self._serve_next)
        run.admitted()

    def check_room(self, job_id: str | None = None) -> None:
        """Refuse early.

        Raises:
            AdapterClosed: `close` was called.
            CapacityExceeded: Too many run and wait.
        """
        self.check_open()
        room = self._max_concurrency + self._max_pending
        with self._lock:
            # What is over counts no more: its End is seen a moment before it leaves. By tasks that
            # live: one that runs outlives its stream by the end of its body.
            if len(self._live) >= room and sum(not r.over for r in [*self._live.values()]) >= room:
                raise CapacityExceeded(
                    f"max_concurrency {self._max_concurrency} tasks run and "
                    f"max_pending {self._max_pending} wait",
                    job_id=job_id,
                )

    def check_open(self) -> None:
        """Refuse early.

        Raises:
            AdapterClosed: `close` was called, or the interpreter is shutting down.
        """
        if self._closed:
            raise AdapterClosed("the adapter is closed")
        check_not_finalizing()

    def _serve_next(self) -> None:
        """A worker's job."""
        run = self._take()
        if run is not None:
            self._serve(run)

    def _take(self) -> Run | None:
        """The task whose turn it is, if there is a place for it."""
        with self._lock:
            if self._closed or len(self._running) >= self._max_concurrency:
                return None
            # In one step: a collection between two may end a task, and take it out of here.
            try:
                run, _ = self._waiting.popitem(last=False)
            except KeyError:
                return None
            self._running.add(run)
            return run

    def release(self, run: Run) -> None:
        """A task that ran holds on to the engine no more: its place goes to the next.

        Idempotent: it may be tried again, where it was broken off.
        """
        with self._lock:
            if run not in self._running:
                return
            self._running.remove(run)
        self._go_on()
        self._log(run)

    def _go_on(self) -> None:
        """A place is free, or was promised to a task that is not there any more.

        Whoever cannot have it ends. A thousand may wait, so one after the other.
        """
        while self._waiting and not self._closed:
            try:
                self._crew.run(self._serve_next)
            except Exception as failure:
                run = self._take()
                if run is None:
                    return
                run.end_with(failure)
                with self._lock:
                    self._running.discard(run)
                self._log(run)
            else:
                return

    def _log(self, run: Run) -> None:
        """On a thread that may be kept waiting by the application's handlers."""
        if not run.logged and is_logged(run):
            run.logged = True
            self._unlogged.append(run)
            try:
                self._crew.run(self._log_next)
            except Exception:  # no thread; it is done all the same
                self._log_next()

    def _log_next(self) -> None:
        """A worker's job."""
        with contextlib.suppress(IndexError):
            log_end(self._unlogged.popleft())

    def find(self, job_id: str) -> Run | None:
        """The task of that id, live or with events that its caller may still take."""
        reference = self._known.get(job_id)
        return None if reference is None else reference()

    def _know(self, run: Run) -> None:
        if len(self._known) >= self._sweep_at:
            self._known = {key: ref for key, ref in [*self._known.items()] if ref() is not None}
            self._sweep_at = max(_FEW, 2 * len(self._known))
        self._known[run.job_id] = weakref.ref(run)

    def leave(self, run: Run) -> None:
        """The task's stream is over: its id is free, and so is its place if it waited. Idempotent.

        On any thread, in a finalizer or a signal handler too, so it starts no thread.
        """
        with self._lock:
            # A collection between any two of these steps may come here for the same task.
            if self._live.get(run.job_id) is run:
                self._live.pop(run.job_id, None)
            if run in self._waiting:
                run.reader.soon(functools.partial(self._left_waiting, run))
                self._waiting.pop(run, None)

    def _left_waiting(self, run: Run) -> None:
        self._go_on()
        self._log(run)  # nobody will release it

    def close(self) -> list[Run]:
        """Admit nothing more; the tasks that are live."""
        self._closed = True
        with self._lock:
            return list(self._live.values())

    def crash_all(self, reader: Loop, failure: BaseException) -> None:
        """That reader is dead, and with it the clocks of all tasks that began with it."""
        with self._lock:
            live = [run for run in self._live.values() if run.reader is reader]
        for run in live:
            run.crash(failure)

    def join(self, timeout: float) -> None:
        """Wait for the worker threads, at most so many seconds."""
        self._crew.close(timeout)
