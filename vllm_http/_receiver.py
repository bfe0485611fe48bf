"""The queue between the reader and a caller: one thread boundary, one honest end.

`Receiver` is a `queue.Queue` of TokenEvents. All tokens of a read go in under one lock and with one
wake-up; a full queue (`maxsize` events, and the tokens of one read) makes reading wait. They come
out without a lock, since a deque is thread-safe by itself.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from queue import Queue  # this very class: gevent may put another one there after the import

from ._bell import Bell
from ._errors import AdapterClosed
from ._events import Error, Started, TokenEvent
from ._gate import Gate


class Receiver(Gate, Queue[TokenEvent]):
    """Events of one task, in order; the last one is an `End` or an `Error`.

    Made by `submit`. `get` is for one thread at a time; everything else for any. Once the last
    event has been taken, `get` raises `queue.Empty` at once rather than block for ever.

    Args:
        maxsize: Events that may wait before reading stops.
    """

    queue: deque[TokenEvent]

    def __init__(self, maxsize: int) -> None:
        Queue.__init__(self, maxsize)
        Gate.__init__(self)
        self._renew_lock()

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
        self.queue.extend(events)

    def _forget(self) -> None:
        self.queue.clear()

    def _purge(self, last: TokenEvent | None) -> None:
        keep = []
        with contextlib.suppress(IndexError):  # the consumer may take some meanwhile
            while True:
                event = self.queue.popleft()
                if isinstance(event, Started) or event is last:
                    keep.append(event)
        self.queue.extend(keep)

    def _forget_in_child(self) -> None:
        """After a fork: the parent's worker is not here, so say so instead of waiting for it."""
        self._renew_lock()
        self._over = True
        self._resume = None
        self._forget()
        self.queue.append(Error(AdapterClosed("this stream belongs to the parent process")))

    def _renew_lock(self) -> None:
        # Reentrant, unlike a plain Queue's: see Gate.
        self.mutex = threading.RLock()
        self.bell = Bell()
