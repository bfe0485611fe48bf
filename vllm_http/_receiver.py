"""The queue between a worker and its caller: one thread boundary, one lock, one honest end.

`Receiver` is a `queue.Queue` of TokenEvents. What it adds lives under the queue's own mutex: all
tokens of a read go in under one lock and with one wake-up; a full queue (`maxsize` events, and the
tokens of one read) makes reading wait; and events come out in bulk: the caller's thread moves up
to half a queue to its own side under the lock and then hands them out without it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from ._errors import AdapterClosed
from ._events import Error, Started, TokenEvent
from ._gate import Gate
from ._threads import patience


class Receiver(Gate, queue.Queue[TokenEvent]):
    """Events of one task, in order; the last one is an `End` or an `Error`.

    Made by `submit`. `get` is for one thread at a time; everything else for any. Once the last
    event has been taken, `get` raises `queue.Empty` at once rather than block for ever.

    Args:
        maxsize: Events that may wait before reading stops.
    """

    def __init__(self, maxsize: int) -> None:
        queue.Queue.__init__(self, maxsize)
        Gate.__init__(self)
        self._renew_lock()
        self._taken: deque[TokenEvent] = deque()  # the consumer's side; no lock needed

    def get(self, block: bool = True, timeout: float | None = None) -> TokenEvent:
        """The next event.

        Raises:
            queue.Empty: None came in time, or the stream is over and all were taken.
        """
        try:
            return self._taken.popleft()
        except IndexError:
            self._take(block, timeout)
        try:
            return self._taken.popleft()
        except IndexError:  # purged between the two
            return self.get(block, timeout)

    def _take(self, block: bool, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.mutex:
            while not self.queue:
                self._make_room_known()
                left = None if deadline is None else deadline - time.monotonic()
                if self._over or not block or (left is not None and left <= 0):
                    raise queue.Empty
                self.not_empty.wait(patience(left))
            with contextlib.suppress(IndexError):
                for _ in range(max(1, self.maxsize // 2)):
                    self._taken.append(self.queue.popleft())
            self._make_room_known()

    def _make_room_known(self) -> None:
        # At half the queue, not at each free place: a slow caller must not cost a wake-up a token.
        if self._resume is not None and self._backlog() <= self.maxsize // 2:
            self.go_on()

    def wake(self) -> None:
        """Wake the caller, if it waits."""
        with self.mutex:
            self.not_empty.notify_all()

    def _backlog(self) -> int:
        return len(self.queue) + len(self._taken)

    def _is_full(self) -> bool:
        return self._backlog() >= self.maxsize

    def _store(self, events: Sequence[TokenEvent]) -> None:
        self.queue.extend(events)

    def _forget(self) -> None:
        self.queue.clear()
        self._taken.clear()

    def _purge(self, last: TokenEvent | None) -> None:
        keep = []
        for side in (self._taken, self.queue):
            with contextlib.suppress(IndexError):  # the consumer may take from its side meanwhile
                while True:
                    event = side.popleft()
                    if isinstance(event, Started) or event is last:
                        keep.append(event)
        self.queue.extend(keep)

    def _qsize(self) -> int:
        return self._backlog()

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
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)
        self.all_tasks_done = threading.Condition(self.mutex)
