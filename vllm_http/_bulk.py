"""Many tasks, one caller: `map` and `stream_many`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TypeAlias

from ._collector import Collector
from ._errors import CapacityExceeded, WorkerError
from ._events import Completion, End, Error, TokenEvent
from ._fork import tell_in_child
from ._funnel import Funnel, Port
from ._run import Run
from ._task import TaskRequest


Start: TypeAlias = Callable[[TaskRequest, Port], Run]
"""Admits a task whose events go to the port; raises what `submit` raises."""


class _Intake:
    """Starts tasks as there is room for them, and hands out their events.

    A task that is refused ends with an `Error` like any other, so that one failure stops nothing.
    """

    def __init__(self, start: Start, tasks: Iterable[TaskRequest], queue_size: int) -> None:
        self._start = start
        self._tasks = enumerate(tasks)
        self._held: Port | None = None  # refused for want of room; tried again when one has ended
        self._funnel = Funnel(queue_size)
        self._running: dict[Port, Run | None] = {}
        tell_in_child(self)

    def fill(self, room: int) -> int:
        """Start tasks until so many run or there are none left; how many run."""
        while len(self._running) < room:
            port = self._held or self._next_port()
            self._held = None
            if port is None:
                break
            try:
                run = self._running[port] = self._start(port.task, port)
                port.job_id = run.job_id
            except WorkerError as error:
                if isinstance(error, CapacityExceeded) and self._running:
                    self._held = port  # others fill the adapter; one of ours will end
                    break
                self._running[port] = None
                port.finish(Error(error))
        return len(self._running)

    def _next_port(self) -> Port | None:
        for position, task in self._tasks:
            return Port(self._funnel, task, position)
        return None

    def events(self) -> Iterator[tuple[Port, TokenEvent]]:
        """What waits now; waits for something if nothing does."""
        for port, events in self._funnel.take():
            for event in events:
                if port.may_show(event):
                    if isinstance(event, (End, Error)):
                        self._running.pop(port, None)
                    yield port, event

    def close(self) -> None:
        """End what runs; nobody listens any more."""
        running, self._running = self._running, {}
        for run in running.values():
            if run is not None:
                run.abandon()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's tasks are over here, and the rest of them is the parent's."""
        self._tasks = enumerate(())
        self._held = None
        self._funnel._forget_in_child()
        for port in self._running:
            port._forget_in_child()


def stream_many(
    start: Start, tasks: Iterable[TaskRequest], in_flight: int, queue_size: int
) -> Iterator[tuple[TaskRequest, TokenEvent]]:
    """See `VllmHttpAdapter.stream_many`."""
    with closing(_Intake(start, tasks, queue_size)) as intake:
        while intake.fill(in_flight):
            for port, event in intake.events():
                yield port.task, event
                if isinstance(event, (End, Error)):
                    intake.fill(in_flight)


def map_tasks(
    start: Start, tasks: Iterable[TaskRequest], in_flight: int, queue_size: int, ordered: bool
) -> Iterator[Completion]:
    """See `VllmHttpAdapter.map`."""
    collectors: dict[Port, Collector] = {}
    finished: dict[int, Completion] = {}  # by position; not yet yielded
    position = 0
    with closing(_Intake(start, tasks, queue_size)) as intake:
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
