"""The order that every task's events keep: `Started`, tokens, one last event, nothing after."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ._events import End, Error, Started, Token, TokenEvent


class Gate(ABC):
    """The order of one task's events, under a lock. Where they are kept is the subclass's matter.

    The first caller of `finish` wins, whoever it is (worker, clock, cancel, close).

    Attributes:
        last: The last event, once it is in.
        mutex: Guards all of it. Reentrant: a signal handler or a garbage collection may end this
            very stream while its thread is inside.
        not_full: Where the worker waits for the caller to take events.
    """

    mutex: Any
    not_full: threading.Condition

    def __init__(self) -> None:
        self.last: End | Error | None = None
        self._started = False
        self._over = False
        self._waiting_to_put = False
        self._resumed = 0.0

    @property
    def over(self) -> bool:
        """Whether the last event is in, or none will come."""
        return self._over

    def held_back_until(self, now: float) -> float:
        """When the worker last waited for the caller to take events; now, if it still does."""
        return now if self._waiting_to_put else self._resumed

    def begin(self, event: Started) -> None:
        """Put the `Started` event, unless it is there already or the stream is over."""
        with self.mutex:
            if not self._started and not self._over:
                self._started = True
                self._store((event,))

    def put_tokens(self, tokens: list[Token]) -> bool:
        """Put tokens behind the others; wait while the caller has too many to take.

        Returns:
            False when the stream is over and they were dropped.
        """
        with self.mutex:
            while self._is_full() and not self._over:
                self._waiting_to_put = True
                self.not_full.wait()
            if self._waiting_to_put:
                self._resumed = time.monotonic()
                self._waiting_to_put = False
            if self._over:
                return False
            self._store(tokens)
            return True

    def finish(self, last: End | Error | None, *, purge: bool = False) -> bool:
        """Put the last event; None ends the stream without one.

        Args:
            last: The event.
            purge: Drop the tokens that were not taken yet.

        Returns:
            False when the stream was over already; then its last event stays what it is.
        """
        with self.mutex:
            if self._over:
                if purge:
                    self._purge(self.last)
                return False
            self.last = last
            self._over = True
            if purge:
                self._purge(None)
            self._store(() if last is None else (last,))
            self.not_full.notify_all()
            return True

    def drop(self) -> None:
        """Forget all that was not taken; no last event comes. For the stream's owner."""
        self.finish(None)
        with self.mutex:
            self._forget()

    @abstractmethod
    def _is_full(self) -> bool:
        """Whether the worker has to wait. Under the mutex."""

    @abstractmethod
    def _store(self, events: Sequence[TokenEvent]) -> None:
        """Keep the events and wake the caller, even for none. Under the mutex."""

    @abstractmethod
    def _purge(self, last: TokenEvent | None) -> None:
        """Drop all but `Started` and the last event, where they were not taken. Under the mutex."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop all that was not taken. Under the mutex."""
