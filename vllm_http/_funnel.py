"""One queue for the events of many tasks, drained by one caller."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from ._bell import Bell
from ._events import Started, TokenEvent
from ._gate import Gate
from ._task import TaskRequest


class Funnel:
    """What `Port`s put in, by the read; taken whole, so that the lock costs little a token.

    Memory holds `maxsize` events, and the tokens of one read for each task.

    Args:
        maxsize: Events, over all tasks, that may wait before reading stops.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.batches: deque[tuple[Port, Sequence[TokenEvent]]] = deque()
        self.events = 0  # waiting, or taken by the latest `take`
        self._taken = 0
        self.held: list[Port] = []  # their tasks' reading waits for room
        self._renew_lock()

    def _renew_lock(self) -> None:
        self.mutex = threading.RLock()
        self.bell = Bell()

    def take(self) -> list[tuple[Port, Sequence[TokenEvent]]]:
        """All that waits, in order; waits for something. For one thread."""
        with self.mutex:
            self.events -= self._taken
            self._taken = 0
            held, self.held = self.held, []
            for port in held:
                port.go_on()
        while not self.batches:
            self.bell.wait()
        with self.mutex:
            batches = list(self.batches)
            self.batches.clear()
            self._taken = self.events
            return batches

    def _forget_in_child(self) -> None:
        """After a fork: the parent's workers are not here; ports that wait for them are over."""
        self._renew_lock()
        self.batches.clear()
        self.held.clear()
        self.events = self._taken = 0


class Port(Gate):
    """One task's way into a funnel.

    Args:
        funnel: Where its events go.
        task: What the caller gets with each event.
        position: Of the task among those that the caller gave.

    Attributes:
        job_id: Of its run; of the task, until there is one.
    """

    def __init__(self, funnel: Funnel, task: TaskRequest, position: int) -> None:
        super().__init__()
        self.task = task
        self.position = position
        self.job_id: str | None = getattr(task, "job_id", None)
        self._purged = False  # tokens that were taken in bulk, but not shown yet, are void
        self._funnel = funnel
        self.mutex = funnel.mutex
        self.bell = funnel.bell  # the same for all ports: one round of reads wakes once

    def _is_full(self) -> bool:
        return self._funnel.events >= self._funnel.maxsize

    def _store(self, events: Sequence[TokenEvent]) -> None:
        if events:
            self._funnel.batches.append((self, events))
            self._funnel.events += len(events)

    def _hold(self) -> None:
        self._funnel.held.append(self)

    def _purge(self, last: TokenEvent | None) -> None:
        self._purged = True

    def _forget(self) -> None:
        self._purged = True

    def _forget_in_child(self) -> None:
        """After a fork: the parent's worker is not here. The funnel has forgotten already."""
        self.mutex = self._funnel.mutex
        self._end_in_child()

    def may_show(self, event: TokenEvent) -> bool:
        """Whether the caller may see an event that was taken."""
        return not self._purged or isinstance(event, Started) or event is self.last
