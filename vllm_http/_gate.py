"""The order that every task's events keep: `Started`, tokens, one last event, nothing after."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ._bell import Bell
from ._errors import AdapterClosed
from ._events import End, Error, Started, Token, TokenEvent


class Gate(ABC):
    """The order of one task's events, under a lock. Where they are kept is the subclass's matter.

    The first caller of `finish` wins, whoever it is (worker, clock, cancel, close).

    Attributes:
        last: The last event, once it is in.
        mutex: Guards all of it. Reentrant: a signal handler or a garbage collection may end this
            very stream while its thread is inside.
        bell: Rings when there is something for the caller.
    """

    mutex: Any
    bell: Bell

    def __init__(self) -> None:
        self.last: End | Error | None = None
        self._started = False
        self._over = False
        self._unsaid: End | Error | None = None  # the last event, while it is not put yet
        # What `deliver` was given, until reading goes on; and the latest one that was called.
        self._resume: Callable[[], None] | None = None
        self._asked: Callable[[], None] | None = None
        self._resumed = 0.0

    @property
    def over(self) -> bool:
        """Whether the last event is in, or none will come."""
        return self._over

    @property
    def holds_back(self) -> bool:
        """Whether reading waits for the caller to take events."""
        return self._resume is not None

    def held_back_until(self, now: float) -> float:
        """When the reader last waited for the caller to take events; now, if it still does."""
        # Unlocked: a clock rings on the reader's thread, which alone calls `resumed`.
        return now if self._resume is not None else self._resumed

    def begin(self, event: Started) -> None:
        """Put the `Started` event, unless it is there already or the stream is over."""
        with self.mutex:
            if not self._started and not self._over:
                self._started = True
                self._store((event,))
                self.bell.ring()

    def deliver(self, tokens: list[Token], resume: Callable[[], None]) -> bool:
        """Put tokens behind the others, unless the stream is over. Ring the bell after it.

        Args:
            tokens: All of one read; they are taken though there be no room.
            resume: Called once there is room again, or twice; it takes no lock. Another object
                each time.

        Returns:
            Whether there is room for more.
        """
        with self.mutex:
            if self._over:
                return True
            self._store(tokens)
            if not self._is_full():
                return True
            self._resume = resume
            self._hold()
            return False

    def go_on(self) -> None:
        """The caller has made room; nothing if nobody waits for it. On the caller's thread.

        Called before it is noted: an exception may strike in between, and a reader that is asked
        twice reads once too often, one that is never asked not at all.
        """
        resume = self._resume  # None as a rule; `deliver` has the bell rung after it has set one
        if resume is not None and resume is not self._asked:
            resume()
            self._asked = resume

    def resumed(self) -> None:
        """Reading goes on. On the reader's thread."""
        self._resumed = time.monotonic()
        self._resume = None

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
                self.say_last()  # the first may have been interrupted just before it did
                return False
            try:
                self.last = self._unsaid = last
                self._over = True
                self._resume = None
                if purge:
                    self._purge(None)
            finally:  # whatever goes wrong, nobody waits on for what will not come
                self.say_last()
            return True

    def say_last(self) -> None:
        """Put the last event, if there is one that was not put: `finish` may be broken off."""
        with self.mutex:
            try:
                if self._over and self._unsaid is not None:
                    self._store((self._unsaid,))
                    self._unsaid = None
            finally:
                self.bell.ring()

    def drop(self) -> None:
        """Forget all that was not taken; no last event comes. For the stream's owner."""
        self.finish(None)
        with self.mutex:
            self._unsaid = None
            self._forget()

    def _end_in_child(self) -> None:
        """After a fork: put the last event of a stream that is the parent's, whatever it had."""
        self._over = True
        self._unsaid = None
        self.last = Error(AdapterClosed("this stream belongs to the parent process"))
        self._store((self.last,))

    @abstractmethod
    def _is_full(self) -> bool:
        """Whether reading has to wait. Under the mutex."""

    def _hold(self) -> None:  # noqa: B027 - most need nothing
        """Have `go_on` called once the caller has taken enough. Under the mutex."""

    @abstractmethod
    def _store(self, events: Sequence[TokenEvent]) -> None:
        """Keep the events. Under the mutex."""

    @abstractmethod
    def _purge(self, last: TokenEvent | None) -> None:
        """Drop all but `Started` and the last event, where they were not taken. Under the mutex."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop all that was not taken. Under the mutex."""
