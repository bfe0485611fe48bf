"""The queue between the reader and a caller: one thread boundary, one honest end.

`Receiver` is a `queue.Queue` of TokenEvents. All tokens of a read go in under one lock and with one
wake-up; a full queue (`maxsize` events, and the tokens of one read) makes reading wait. They come
out without a lock, since a deque is thread-safe by itself.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Queue  # this very class: gevent may put another one there after the import

from ._bell import Bell
from ._events import Started, TokenEvent
from ._gate import Gate


class Receiver(Gate, Queue[TokenEvent]):
    """Events of one task, in order; the last one is an `End` or an `Error`.

    Made by `submit`. `get` is for one thread at a time; everything else for any. Once the last
    event has been taken, `get` raises `queue.Empty` at once rather than block for ever.

    Args:
        maxsize: Events that may wait before reading stops.

    Attributes:
        kept: All events that were put and not dropped, taken or not, for `TokenStream.result`.
            Kept where they come in, by the read, so that it doesn't matter by which way, or by
            which interrupted caller, they were taken.
    """

    queue: deque[TokenEvent]
    unfinished_tasks = 0  # of the class as well: gevent's queue has one that cannot be set

    def __init__(self, maxsize: int) -> None:
        # All of `Queue.__init__` but its locks, which are plain and of which we use none.
        self.maxsize = maxsize
        self.queue = deque()
        Gate.__init__(self)
        self.kept: list[TokenEvent] = []
        self._renew_lock()

    # Of a `Queue`, for those of its methods that are not ours: made when they are called.

    @functools.cached_property
    def not_empty(self) -> threading.Condition:  # type: ignore[override]
        return threading.Condition(self.mutex)

    @functools.cached_property
    def not_full(self) -> threading.Condition:  # type: ignore[override]
        return threading.Condition(self.mutex)

    @functools.cached_property
    def all_tasks_done(self) -> threading.Condition:  # type: ignore[override]
        return threading.Condition(self.mutex)

    def get(self, block: bool = True, timeout: float | None = None) -> TokenEvent:
        """The next event.

        Raises:
            queue.Empty: None came in time, or the stream is over and all were taken.
        """
        try:
            event = self.queue.popleft()
        except IndexError:
            event = self._wait(block, timeout)
        # At half the queue, not at each free place: a slow caller must not cost a wake-up a token.
        if self._resume is not None and len(self.queue) <= self.maxsize // 2:
            self.go_on()
        return event

    def _wait(self, block: bool, timeout: float | None) -> TokenEvent:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            over = self._over  # before the look into the queue
            with contextlib.suppress(IndexError):
                return self.queue.popleft()
            self.go_on()  # it may have been filled, and emptied, before the reader knew
            left = None if deadline is None else deadline - time.monotonic()
            if over:
                return self._rest()
            if not block or (left is not None and left <= 0):
                raise queue.Empty
            self.bell.wait(left)

    def _rest(self) -> TokenEvent:
        with self.mutex, contextlib.suppress(IndexError):
            # Whoever ended the stream, or purges it, has put the last event by now.
            return self.queue.popleft()
        self.bell.ring()  # a second thread that waits, against the rules, waits no more
        raise queue.Empty

    def _is_full(self) -> bool:
        return len(self.queue) >= self.maxsize

    def _store(self, events: Sequence[TokenEvent]) -> None:
        self.kept.extend(events)  # first: who has taken an event may ask for the result at once
        self.queue.extend(events)

    def _forget(self) -> None:
        self._drop(lambda event: True)

    def _purge(self, last: TokenEvent | None) -> None:
        self._drop(lambda event: not isinstance(event, Started) and event is not last)

    def _drop(self, unwanted: Callable[[TokenEvent], bool]) -> None:
        """Drop those events that were not taken yet. Under the mutex.

        From the end: the consumer may take some meanwhile, and what it takes has no gap then.
        """
        wanted, dropped = [], set()
        with contextlib.suppress(IndexError):
            while True:
                event = self.queue.pop()
                if unwanted(event):
                    dropped.add(id(event))
                else:
                    wanted.append(event)
        self.queue.extendleft(wanted)
        if dropped:
            self.kept = [event for event in self.kept if id(event) not in dropped]

    def _forget_in_child(self) -> None:
        """After a fork: the parent's worker is not here, so say so instead of waiting for it."""
        self._renew_lock()
        self._resume = None
        if not self._over or any(event is self.last for event in self.queue):
            self._forget()
            self._end_in_child()

    def _renew_lock(self) -> None:
        # Reentrant, unlike a plain Queue's: see Gate.
        self.mutex = threading.RLock()
        self.bell = Bell()
        for condition in ("not_empty", "not_full", "all_tasks_done"):
            self.__dict__.pop(condition, None)
