"""Which replica of a pool takes a task, and what is known of each for that."""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Mapping
from typing import Protocol

from ._errors import EngineUnavailable, Timeout, WorkerError
from ._events import Error, Started
from ._receiver import Receiver
from ._run import Run
from ._stream import TokenStream
from ._worker_adapter import WorkerAdapter


MEMORY = 5.0
"""Seconds for which a replica that refused is not chosen while another is there."""


class Policy(Protocol):
    """Chooses among the replicas of a pool. Called under the registry's lock: it must not block."""

    def choose(self, replicas: Mapping[str, Replica], kept: str | None) -> str:
        """The name of the one that takes the next task.

        Args:
            replicas: At least one, by name.
            kept: Where the task's session was last; it may be bound no more.
        """


class FewestUnfinished:
    """The one with the fewest unfinished tasks, ties at random; a session stays where it is.

    A replica that has just refused is left out, also for its sessions, while another has not.
    """

    def choose(self, replicas: Mapping[str, Replica], kept: str | None) -> str:
        """See `Policy`."""
        able = [name for name, replica in replicas.items() if replica.may_serve()]
        able = able or list(replicas)  # all are as bad
        if kept in able:
            return kept
        counts = {name: replicas[name].unfinished for name in able}
        fewest = min(counts.values())
        return random.choice([name for name in able if counts[name] == fewest])


class Promise:
    """A task that is about to be submitted to a replica.

    Held by its `submit` alone: whatever interrupts that leaves no count and no id behind.
    """

    def __init__(self, replica: Replica, job_id: str | None) -> None:
        self.replica = replica
        self.job_id = job_id
        replica._promises.add(self)


class Replica:
    """An adapter, and what has become of the tasks that it was given. Under the registry's lock."""

    def __init__(self, adapter: WorkerAdapter) -> None:
        self.adapter = adapter
        self._taken: list[_Taken] = []
        self._count = 0
        self._refused_at: float | None = None
        self._tried_since = 0  # the number of the first task that was given after the refusal
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: what other threads of the parent were about to submit is not here."""
        self._promises: weakref.WeakSet[Promise] = weakref.WeakSet()

    def keep(self, promise: Promise, stream: TokenStream) -> None:
        """It has got the task."""
        self.forget(promise)
        self._count += 1
        self._taken.append(_Taken(self._count, stream))

    def forget(self, promise: Promise) -> None:
        """It will not get the task, or has it."""
        self._promises.discard(promise)

    def refuse(self) -> None:
        """It has just shown that it can't serve."""
        self._refused_at = time.monotonic()
        self._tried_since = self._count + 1

    def learn(self) -> None:
        """Look what has become of its tasks. What follows is as of then."""
        for task in self._taken:
            before, now = task.answered, task.look()
            if now is False and before is not False:
                self.refuse()
            elif now and not before and (before is False or task.number >= self._tried_since):
                self._refused_at = None
        self._taken = [task for task in self._taken if not task.over]

    @property
    def unfinished(self) -> int:
        """Tasks that it has, or is about to get."""
        return len(self._promises) + len(self._taken)

    def may_serve(self) -> bool:
        """Whether there is hope: it has not refused lately, or it may be tried with one task."""
        if self._refused_at is None:
            return True
        on_trial = self._promises or any(task.number >= self._tried_since for task in self._taken)
        return not on_trial and time.monotonic() - self._refused_at >= MEMORY


class _Taken:
    """One task of a replica. It keeps neither the stream alive nor, after that, its events.

    Attributes:
        number: Later ones are greater.
        over: Whether the task has ended.
        answered: Whether the engine has accepted it; False if it refused, be it only the latest
            try; None if neither is known.
    """

    def __init__(self, number: int, stream: TokenStream) -> None:
        self.number = number
        self.over = False
        self.answered: bool | None = None
        self._held: tuple[Receiver, Run] | None = (stream.receiver, stream._run)
        self._stream = weakref.ref(stream, self._let_go)

    def look(self) -> bool | None:
        """What is known by now of `answered`."""
        held = self._held
        if held is not None:
            self.over = held[0].over
            self.answered = _answered(*held)
        if self.over:
            self._held = None
        return self.answered

    def _let_go(self, stream: weakref.ref[TokenStream]) -> None:
        """Nobody holds the stream any more. In a finalizer, so it takes no lock."""
        self.look()
        self.over = True
        self._held = None


def _answered(receiver: Receiver, run: Run) -> bool | None:
    last = receiver.last
    accepted = bool(receiver.kept) and isinstance(receiver.kept[0], Started)
    if isinstance(last, Error):
        if is_refusal(last.error):
            return False
        return True if accepted or last.error.status is not None else None
    if accepted:
        return True
    refused = run.last_failure is not None and is_refusal(run.last_failure)  # the latest try
    return False if refused else None


def is_refusal(error: WorkerError) -> bool:
    """Whether it says that the replica, not the task, is at fault."""
    return isinstance(error, EngineUnavailable) or (
        isinstance(error, Timeout) and error.phase == "connect"
    )
