"""Many tasks, one caller: `map` and `stream_many`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TypeAlias

from ._collector import Collector
from ._errors import CapacityExceeded, WorkerError
from ._events import Completion, End, Error, TokenEvent
from ._fork import tell_in_child
from ._frames import forget_frames
from ._funnel import Funnel, Port
from ._run import Run
from ._task import TaskRequest


Prepare: TypeAlias = Callable[[TaskRequest, Port], Run]
"""Makes the run of a task whose events go to the port; raises what `submit` raises."""

Admit: TypeAlias = Callable[[Run], None]
"""Has it run; raises what `submit` raises. Then, and on any other exception, it is abandoned."""


class _Intake:
    """Starts tasks as there is room for them, and hands out their events.

    A task that is refused ends with an `Error` like any other, so that one failure stops nothing.
    """

    def __init__(
        self, prepare: Prepare, admit: Admit, tasks: Iterable[TaskRequest], queue_size: int
    ) -> None:
        self._prepare = prepare
        self._admit = admit
        self._tasks = enumerate(tasks)
        # Refused for want of room; tried again when one has ended, with a port of its own.
        self._held: tuple[int, TaskRequest] | None = None
        self._funnel = Funnel(queue_size)
        self._running: dict[Port, Run | None] = {}
        tell_in_child(self)
        # For a `close` that a signal handler's exception has kept from its work.
        self._dropped = weakref.finalize(self, _abandon_soon, self._running)
        self._dropped.atexit = False

    def fill(self, room: int) -> int:
        """Start tasks until so many run or there are none left; how many run."""
        while len(self._running) < room:
            numbered = self._held or next(self._tasks, None)
            self._held = None
            if numbered is None or not self._start(*numbered):
                break
        return len(self._running)

    def _start(self, position: int, task: TaskRequest) -> bool:
        """Start a task; False if it has to wait until one of ours has ended.

        Invariant: what is admitted is in `_running` already, so that `close` finds it, wherever a
        signal handler's exception strikes.
        """
        port = Port(self._funnel, task, position)
        try:
            run = self._prepare(task, port)
            port.job_id = run.job_id
            self._running[port] = run
            self._admit(run)
        except WorkerError as error:
            refused = self._running.pop(port, None)
            if refused is not None:
                refused.abandon()
            if isinstance(error, CapacityExceeded) and self._running:
                self._held = position, task  # others fill the adapter
                return False
            self._refuse(position, task, error)
        return True

    def _refuse(self, position: int, task: TaskRequest, error: WorkerError) -> None:
        forget_frames(error)
        port = Port(self._funnel, task, position)
        self._running[port] = None
        port.finish(Error(error))

    def events(self) -> Iterator[tuple[Port, TokenEvent]]:
        """What waits now; waits for something if nothing does."""
        for port, events in self._funnel.take():
            for event in events:
                # What has ended shows nothing more: an end that was broken off may be put twice.
                if port in self._running and port.may_show(event):
                    if isinstance(event, (End, Error)):
                        del self._running[port]
                    yield port, event

    def close(self) -> None:
        """End what runs; nobody listens any more."""
        for run in list(self._running.values()):
            if run is not None:
                run.abandon()
        self._running.clear()
        self._dropped.detach()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's tasks are over here, and the rest of them is the parent's."""
        self._tasks = enumerate(())
        self._held = None
        self._funnel._forget_in_child()
        for port in self._running:
            port._forget_in_child()


def _abandon_soon(running: dict[Port, Run | None]) -> None:
    for run in running.values():
        if run is not None:
            run.abandon_soon()


def stream_many(
    prepare: Prepare,
    admit: Admit,
    tasks: Iterable[TaskRequest],
    in_flight: int,
    queue_size: int,
) -> Iterator[tuple[TaskRequest, TokenEvent]]:
    """See `VllmHttpAdapter.stream_many`."""
    with closing(_Intake(prepare, admit, tasks, queue_size)) as intake:
        while intake.fill(in_flight):
            for port, event in intake.events():
                yield port.task, event
                if isinstance(event, (End, Error)):
                    intake.fill(in_flight)


def map_tasks(
    prepare: Prepare,
    admit: Admit,
    tasks: Iterable[TaskRequest],
    in_flight: int,
    queue_size: int,
    ordered: bool,
) -> Iterator[Completion]:
    """See `VllmHttpAdapter.map`."""
    collectors: dict[Port, Collector] = {}
    finished: dict[int, Completion] = {}  # by position; not yet yielded
    position = 0
    with closing(_Intake(prepare, admit, tasks, queue_size)) as intake:
        while intake.fill(in_flight - len(finished)):
            for port, event in intake.events():
                collector = collectors.setdefault(port, Collector(port.job_id))
                collector.take(event)
                if not isinstance(event, (End, Error)):
                    continue
                finished[port.position] = collectors.pop(port).completion()
                if not ordered:
                    yield finished.pop(port.position)
                while ordered and position in finished:
                    yield finished.pop(position)
                    position += 1
                intake.fill(in_flight - len(finished))
