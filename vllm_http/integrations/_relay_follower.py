"""The reader's end of the relay: from Redis to whoever waits."""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Iterator

from vllm_http import (
    End,
    Error,
    InvalidRequest,
    StreamingError,
    Timeout,
    TokenEvent,
    WorkerError,
    event_from_json,
)

from ._relay_channel import Channel, Condition, Entry, Look
from ._relay_failures import FAILURES, outlasted, passes, refused


_WAIT = 1.0
"""Seconds that one read waits. A `close` from another thread, and a death, are seen that late."""

_PAUSE = 0.1
"""Seconds before Redis is asked again, when it was away."""


class Follower(Iterator[TokenEvent]):
    """The events of one job, as a worker publishes them. Made by `Relay.follow`.

    An iterator and a context manager. It always ends: with the job's own `End` or `Error`, or with
    an `Error` that says why there is none. A second `Started` means that the task was begun anew,
    by a retry or a redelivery: forget what came before. For one thread; `close` is for any.

    Attributes:
        job_id: The job.
        last_id: The id of the last event taken, to go on from with ``follow(after=...)``; it goes
            well into a browser's ``Last-Event-ID``. None before the first.
    """

    def __init__(self, channel: Channel, after: str | None, patience: float) -> None:
        self.job_id = channel.job_id
        self.last_id = after
        self._channel = channel
        self._patience = patience
        self._fetched = after  # the id of the last event that was read from Redis
        self._waiting: deque[tuple[str | None, TokenEvent]] = deque()
        self._looked_at = -math.inf  # when it was seen whether there is any use in waiting
        self._alone_since: float | None = None
        self._away_since: float | None = None
        self._over = False

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> TokenEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Follower {self.job_id!r} {'over' if self._over else f'at {self.last_id}'}>"

    def get(self, timeout: float | None = None) -> TokenEvent | None:
        """The next event; None once all were taken.

        Args:
            timeout: Seconds to wait; None waits until there is one.

        Raises:
            queue.Empty: None came in time; the stream goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            if self._waiting:
                return self._next()
            left = _WAIT if until is None else max(0.0, until - time.monotonic())
            self._fetch(left)
            late = until is not None and time.monotonic() >= until
            if late and not self._waiting and not self._over:
                raise queue.Empty  # no second try, which a Redis that hangs would double
        return None

    def close(self) -> None:
        """Stop following; the job goes on. A `get` in another thread ends within a second."""
        self._over = True

    def _next(self) -> TokenEvent:
        id, event = self._waiting.popleft()
        if id is not None:
            self.last_id = id
        self._over = self._over or isinstance(event, (End, Error))
        return event

    def _must_look(self) -> bool:
        """Once a second, however often `get` is called, and when patience is over."""
        return time.monotonic() - self._looked_at >= _WAIT or self._longest_wait() == 0.0

    def _longest_wait(self) -> float:
        """Where nobody publishes, no longer than patience lasts."""
        if self._alone_since is None:
            return _WAIT
        return min(_WAIT, max(0.0, self._alone_since + self._patience - time.monotonic()))

    def _fetch(self, left: float) -> None:
        """Read what comes within so many seconds, or a second; or see that nothing will."""
        first = self._looked_at == -math.inf
        wait = 0.0 if first else min(left, self._longest_wait())
        try:
            entries = self._channel.read(self._fetched, wait or None)
            if not entries and self._must_look():
                look = self._channel.look()
                self._looked_at = time.monotonic()
                # What came before that look is read first: an end is believed if nothing is left.
                if self._at() < _before(look.next):
                    entries = self._channel.read(self._fetched)
                if not entries:
                    self._judge(look)
            self._away_since = None
            self._accept(entries)
        except FAILURES as failure:
            if passes(failure):
                self._wait_for_redis(failure, left)
            else:
                self._fail(refused(failure))
        except InvalidRequest as unreadable:  # written by another version
            self._fail(unreadable)

    def _accept(self, entries: list[Entry]) -> None:
        for id, event in entries:
            if not _follows(id, self._fetched):
                message = "the next events were trimmed, since the reader was late"
                return self._fail(StreamingError(message, retriable=False))
            self._fetched, self._alone_since = id, None
            self._waiting.append((id, event_from_json(event)))

    def _at(self) -> tuple[int, int]:
        return (-1, -1) if self._fetched is None else _numbers(self._fetched)

    def _judge(self, look: Look) -> None:
        """There is nothing to read: say whether something may come."""
        at, last = self._at(), _before(look.next)
        unknown = look.condition == "unknown"
        if not unknown and at > last:
            self.refuse(InvalidRequest("after: no event of this job had that id"))
        elif self._fetched if unknown else (at < last and not look.kept):
            message = "the events are gone: expired, or evicted or lost by redis"
            self._fail(StreamingError(message))
        elif look.condition == "live":
            self._alone_since = None
        elif look.condition == "ended":
            self._over = at == last  # else it was begun anew since the look
        elif look.cancelled:
            self._channel.cancel()  # nobody else is there to write the end
        else:
            self._wait_for_publisher(look.condition)

    def _wait_for_publisher(self, condition: Condition) -> None:
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        if now - self._alone_since < self._patience:
            return
        if condition == "unknown":
            message = f"no worker began the job within {self._patience:g} s"
            self._fail(Timeout(message, phase="queued"))
        else:
            message = f"the worker died, and none took its place within {self._patience:g} s"
            self._fail(StreamingError(message))

    def _wait_for_redis(self, away: Exception, left: float) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < self._patience:
            return time.sleep(min(_PAUSE, left))
        self._fail(outlasted(away, self._patience))

    def refuse(self, error: InvalidRequest) -> None:
        """Tell this and nothing else: the reader asked for what there cannot be."""
        self.last_id = None
        self._fail(error)

    def _fail(self, error: WorkerError) -> None:
        error.job_id = self.job_id
        self._waiting.append((None, Error(error)))


def _follows(id: str, before: str | None) -> bool:
    """Whether nothing is missing between two ids: the next number, or a new generation's first."""
    generation, number = _numbers(id)
    last_generation, last_number = (-1, -1) if before is None else _numbers(before)
    return number == (last_number + 1 if generation == last_generation else 0)


def _before(next: str) -> tuple[int, int]:
    """The numbers of the last event that there was, where `next` is the next one's id."""
    generation, count = _numbers(next)
    return generation, count - 1


def _numbers(id: str) -> tuple[int, int]:
    """An id's generation, and the event's number in it: later ids are greater."""
    generation, _, number = id.partition("-")
    return int(generation), int(number)
