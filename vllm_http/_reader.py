"""One thread of an adapter reads all accepted answers and keeps all clocks.

A thread for each running task would wake twice a token: once for the socket, once for the caller.
One selector wakes once for all streams that have a token, as they do at each step of the engine
(docs/reader.md has the measurements).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from ._alarms import Alarms, Ring
from ._bell import Bell, Chain
from ._errors import CapacityExceeded
from ._threads import start_thread


logger = logging.getLogger("vllm_http")


_LONGEST = 3600.0
"""Seconds; more than some selectors take is not needed."""

_BUSY = 4
_GATHER = 0.0005
"""With so many sockets ready at once, seconds that more may take to become ready.

A thousand streams with 20 tokens/s each cost 43 us a token without it, 22 with it: reading one at
a time fights with the callers for the interpreter.
"""

_SOON = 0.001
_LATER = 0.005
"""Seconds after which to look after a chain, with and without something to be done behind it."""

_OVERDUE = 0.05
_SOME = 16
"""Seconds after which so much of it is done in each round, though more tokens keep coming."""


class Watched(Protocol):
    """Who reads a socket. Its methods never raise and never block."""

    def ready(self) -> Bell | None:
        """There is something to read, or an end.

        Returns:
            What to ring for the caller, once all sockets were read: a caller that wakes earlier
            fights this thread for the interpreter at each system call.
        """

    def leave(self) -> None:
        """Nobody watches any more."""


class Reader:
    """The thread's handle. The first `start` starts it.

    `at` and `soon` may be called from any thread, and from a finalizer too: they take no lock, so
    that a garbage collection inside one of our own locks cannot deadlock on them. `afterwards`,
    `watch` and `unwatch` are for the thread itself.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop = _Loop()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread running. Must precede the first alarm.

        Raises:
            CapacityExceeded: No thread is to be had.
        """
        with self._lock:
            if self._thread is None:
                self._loop.open()
                try:
                    self._thread = start_thread("reader", self._loop.run)
                except CapacityExceeded:
                    self._loop.close()
                    raise
                # The thread holds the loop only: a forgotten reader stops by itself.
                weakref.finalize(self, self._loop.tell, None).atexit = False

    def at(self, when: float, ring: Ring) -> None:
        """Call a bound method at that time (`time.monotonic`), unless its object is gone then."""
        alarm = (when, weakref.WeakMethod(ring))
        self._loop.tell(alarm, before=when)

    def soon(self, call: Callable[[], object]) -> None:
        """Call something on the reader's thread, now. It must not raise."""
        self._loop.tell(call)

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call something soon, but not before the callers woken by this round of reads run."""
        self._loop.do_afterwards(call)

    def watch(self, fileno: int, watched: Watched) -> None:
        """Tell whenever there is something to read, or an end."""
        self._loop.selector.register(fileno, selectors.EVENT_READ, watched)

    def unwatch(self, fileno: int) -> None:
        """Tell no more."""
        self._loop.selector.unregister(fileno)

    def stop(self, timeout: float) -> None:
        """Do what was asked for until now, and end; wait at most that many seconds for it."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.tell(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _forget_in_child(self) -> None:
        """After a fork: close the child's copies. What they stand for goes on in the parent."""
        self._loop.close()


_Message: TypeAlias = "tuple[float, weakref.WeakMethod[Ring]] | Callable[[], object] | None"


class _Loop:
    """What the thread holds."""

    selector: selectors.BaseSelector

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._alarms = Alarms()
        self._chain = Chain()
        self._bells: dict[Bell, None] = {}  # of this round of reads, in order
        self._afterwards: deque[Callable[[], object]] = deque()
        self._overdue = 0.0
        self._over = False
        self._wakes_at = -math.inf  # when it wakes by itself; -inf while it is awake
        self._pipe: tuple[int, int] | None = None
        self._closers: list[weakref.finalize[..., _Loop]] = []

    def open(self) -> None:
        """Take what the system has to give."""
        self.selector = selectors.DefaultSelector()
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
            # Not before the last who may `tell` is gone: the number may mean another file by then.
            self._closers.append(weakref.finalize(self, os.close, end))
            self._closers[-1].atexit = False
        self.selector.register(self._pipe[0], selectors.EVENT_READ)

    def close(self) -> None:
        """Give it back; where no other thread is."""
        self._pipe = None
        if self._closers:
            self.selector.close()
        while self._closers:
            self._closers.pop()()

    def tell(self, message: _Message, *, before: float = -math.inf) -> None:
        """Leave a message, and wake the thread if it would sleep until `before`."""
        self._inbox.put(message)
        if self._over:
            self._forget_messages()
        pipe = self._pipe
        if before < self._wakes_at and pipe is not None:
            with contextlib.suppress(OSError):  # full: it wakes anyway; closed: it is over
                os.write(pipe[1], b"\0")

    def run(self) -> None:
        """The thread's body: blocks in the selector, and rests for a moment while it is busy."""
        try:
            while self._take_messages():
                self._alarms.ring_due()
                # In this order: whoever leaves a message after the look into the inbox reads that
                # the thread sleeps.
                self._wakes_at = self._alarms.next
                wait = max(0.0, self._wakes_at - time.monotonic()) if self._inbox.empty() else 0.0
                ready = self.selector.select(min(wait, self._patience()))
                self._wakes_at = -math.inf
                self._read(ready)
                sockets = len(ready)
                del ready  # it may hold the last reference to a task, and that to our handle
                self._wake_callers(sockets)
        finally:
            self._wake_callers(1)
            for key in list(self.selector.get_map().values()):
                if key.data is not None:
                    key.data.leave()
            self.selector.close()
            self._over = True
            self._forget_messages()

    def _forget_messages(self) -> None:
        """Nobody reads them any more, and they would keep their tasks, and those our handle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()

    def _take_messages(self) -> bool:
        """Do what the messages say; False once one says to end.

        Not those that come meanwhile: a stream that reads on and on would keep out all others.
        """
        for _ in range(self._inbox.qsize()):
            message = self._inbox.get()
            if message is None:
                return False
            if isinstance(message, tuple):
                self._alarms.add(*message)
            else:
                self._call(message)
        return True

    def _call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:  # one task's bug must not stop all others
            logger.exception("a message to the reader failed")

    def _read(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            watched: Watched | None = key.data
            if watched is None:
                self._empty_pipe()
            elif (bell := watched.ready()) is not None:
                self._bells[bell] = None

    def _wake_callers(self, sockets: int) -> None:
        """Those for whom something was read, from so many sockets; then do what may wait."""
        if sockets == 1:
            self._do_afterwards()  # nobody else has to wait for it
        if self._bells:
            self._chain.ring(self._bells)
            self._bells.clear()
        if sockets >= _BUSY:
            time.sleep(_GATHER)
        if not self._chain.done:
            self._chain.mend()
        if sockets < _BUSY and self._chain.done:
            self._do_afterwards()
        elif self._afterwards and time.monotonic() > self._overdue:
            self._do_afterwards(_SOME)

    def do_afterwards(self, call: Callable[[], object]) -> None:
        """See `Reader.afterwards`."""
        if not self._afterwards:
            self._overdue = time.monotonic() + _OVERDUE
        self._afterwards.append(call)

    def _do_afterwards(self, most: int | None = None) -> None:
        for _ in range(len(self._afterwards) if most is None else most):
            if self._afterwards:
                self._call(self._afterwards.popleft())

    def _patience(self) -> float:
        if self._chain.done:
            return 0.0 if self._afterwards else _LONGEST
        return _SOON if self._afterwards else _LATER

    def _empty_pipe(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._pipe[0] if self._pipe else -1, 4096)
