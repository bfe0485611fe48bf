"""One thread of an adapter reads all accepted answers and keeps all clocks.

A thread for each running task would wake twice a token: once for the socket, once for the caller.
One selector wakes once for all streams that have a token, as they do at each step of the engine
(docs/reader.md has the measurements).
"""

from __future__ import annotations

import contextlib
import functools
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
from typing import Protocol, TypeAlias, TypeVar

from ._alarms import Alarms, Reference, Ring, reference_to
from ._bell import Bell, Chain
from ._errors import AdapterClosed, CapacityExceeded
from ._threads import deadline_in, join, start_thread, uninterrupted


logger = logging.getLogger("vllm_http")

T = TypeVar("T")


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
    """Who reads a socket. Its methods never block."""

    def ready(self) -> Bell | None:
        """There is something to read, or an end.

        Returns:
            What to ring for the caller, once all sockets were read: a caller that wakes earlier
            fights this thread for the interpreter at each system call.
        """

    def leave(self) -> None:
        """Nobody watches any more."""

    def crash(self, failure: BaseException) -> None:
        """One of these, or a call that it has left, has raised: end that stream. Never raises."""


class Reader:
    """The thread's handle. The first `start` starts it, and the first after its death another.

    Args:
        on_death: A bound method, whose object is not kept alive. Called with the loop that has
            died, which none should, and with what has killed it: all that began on it ends.
    """

    def __init__(self, on_death: Callable[[Loop, BaseException], None] | None = None) -> None:
        self._on_death = None if on_death is None else reference_to(on_death)
        self._lock = threading.RLock()
        self._loop = Loop(self._on_death)
        self._dying: list[Loop] = []  # the earlier ones, as far as they are not over
        self._stopped = False
        self._forgotten: weakref.finalize[..., Reader] | None = None

    def start(self) -> Loop:
        """The loop of the thread, which runs. Whatever begins on it stays with it to its end.

        Raises:
            CapacityExceeded: The system gives no thread, or no descriptor for it.
            AdapterClosed: `stop` was called.
        """
        loop = self._loop
        if self._stopped or loop.ending or loop.thread is None:
            return uninterrupted(self._start)
        return loop

    def _start(self) -> Loop:
        with self._lock:
            if self._stopped:
                raise AdapterClosed("the adapter is closed")
            if self._loop.ending:
                self._dying = [loop for loop in (*self._dying, self._loop) if not loop.over]
                self._loop = Loop(self._on_death)
            loop = self._loop
            if loop.thread is not None:
                return loop
            try:
                loop.open()
                loop.thread = start_thread("reader", loop.run)
            except OSError as failure:
                loop.close()
                raise CapacityExceeded(f"no descriptor to be had: {failure.strerror}") from failure
            except BaseException:
                loop.close()
                raise
            # The thread holds the loop only: a forgotten reader stops by itself.
            self._forgotten = weakref.finalize(self, loop.tell, None)
            self._forgotten.atexit = False
            return loop

    def stop(self, timeout: float) -> None:
        """Do what was asked for until now, and end for good; wait at most so many seconds."""
        deadline = deadline_in(timeout)
        with self._lock:
            self._stopped = True
            if self._forgotten is not None:
                self._forgotten.detach()  # a finalizer swallows an interrupt that hits it
            loops = [self._loop, *self._dying]
        for loop in loops:
            if loop.thread is not None:
                loop.tell(None)
                join(loop.thread, deadline)

    def _forget_in_child(self) -> None:
        """After a fork: close the child's copies. What they stand for goes on in the parent."""
        for loop in (self._loop, *self._dying):
            loop.close()


_Message: TypeAlias = "tuple[float, Reference] | Callable[[], object] | None"


class Loop:
    """What the thread holds.

    `at` and `soon` may be called from any thread, and from a finalizer too: they take no lock, so
    that a garbage collection inside one of our own locks cannot deadlock on them. `afterwards`,
    `watch` and `unwatch` are for the thread itself.

    Attributes:
        thread: Runs it, or did; None until it is started.
        ending: Nothing may begin on it any more. Set before anybody is told of its death: who
            begins something looks here afterwards, or it is among what `on_death` ends.
        over: Nobody takes messages any more.
    """

    selector: selectors.BaseSelector

    def __init__(self, on_death: Reference | None) -> None:
        self.thread: threading.Thread | None = None
        self.ending = False
        self.over = False
        self._on_death = on_death
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._alarms = Alarms()
        self._chain = Chain()
        self._bells: dict[Bell, None] = {}  # of this round of reads, in order
        self._afterwards: deque[Callable[[], object]] = deque()
        self._overdue = 0.0
        self._wakes_at = -math.inf  # when it wakes by itself; -inf while it is awake
        self._pipe: tuple[int, int] | None = None
        self._closers: list[weakref.finalize[..., Loop]] = []

    def open(self) -> None:
        """Take what the system has to give."""
        self.selector = selectors.DefaultSelector()
        self._close_in_the_end(self.selector.close)
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
            self._close_in_the_end(os.close, end)
        self.selector.register(self._pipe[0], selectors.EVENT_READ)

    def _close_in_the_end(self, close: Callable[..., None], *what: int) -> None:
        # Not before the last who may `tell` is gone: the number may mean another file by then.
        self._closers.append(weakref.finalize(self, close, *what))
        self._closers[-1].atexit = False

    def close(self) -> None:
        """Give it back; where no other thread is."""
        self._pipe = None
        while self._closers:
            self._closers.pop()()

    def at(self, when: float, ring: Ring) -> None:
        """Call a bound method at that time (`time.monotonic`), unless its object is gone then."""
        self.tell((when, reference_to(ring)), before=when)

    def soon(self, call: Callable[[], object]) -> None:
        """Call something on the reader's thread, now; on this one where that is gone."""
        self.tell(call)

    def watch(self, fileno: int, watched: Watched) -> None:
        """Tell whenever there is something to read, or an end.

        Whoever closes the descriptor has it unwatched before: its number may be another's then.

        Raises:
            RuntimeError: The loop is ending; nobody would read.
        """
        if self.ending:
            raise RuntimeError("the reader's thread is ending")
        self.selector.register(fileno, selectors.EVENT_READ, watched)

    def unwatch(self, fileno: int) -> None:
        """Tell no more."""
        self.selector.unregister(fileno)

    def tell(self, message: _Message, *, before: float = -math.inf) -> None:
        """Leave a message, and wake the thread if it would sleep until `before`."""
        self._inbox.put(message)
        # After the line above: whoever sees that it is over does what is left in the inbox.
        if self.over:
            self._take_last_messages()
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
        except BaseException as failure:
            self.ending = True
            _log_failure("the reader's thread died", failure)
            _guarded(functools.partial(self._tell_of_death, failure))
        finally:
            self._end()

    def _tell_of_death(self, failure: BaseException) -> None:
        reference, method = self._on_death or (lambda: None, None)
        thing = reference()
        if thing is not None and method is not None:
            method(thing, self, failure)

    def _end(self) -> None:
        """Nobody reads on: let go of all, and do what was left to do."""
        self.ending = True
        for step in (
            *(self._ring_all, self._do_afterwards, self._unwatch_all),
            *(self._take_last_messages, self.selector.close),
        ):
            _guarded(step)
        self.over = True
        self._take_last_messages()

    def _ring_all(self) -> None:
        self._chain.ring_all(self._bells)

    def _unwatch_all(self) -> None:
        for key in list(self.selector.get_map().values()):
            if key.data is not None:
                _guarded(key.data.leave)

    def _take_last_messages(self) -> None:
        """Do them all: they may free a connection, and would keep their tasks alive otherwise.

        An alarm rings no more: whatever it was for has ended, or is ended by these.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._inbox.get_nowait()
                if callable(message):
                    _guarded(message)

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
                _guarded(message)
        return True

    def _read(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            watched: Watched | None = key.data
            if watched is None:
                self._empty_pipe()
            elif (bell := _guarded(watched.ready)) is not None:
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

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call something soon, but not before the callers woken by this round of reads run."""
        if not self._afterwards:
            self._overdue = time.monotonic() + _OVERDUE
        self._afterwards.append(call)

    def _do_afterwards(self, most: int | None = None) -> None:
        for _ in range(len(self._afterwards) if most is None else most):
            if self._afterwards:
                _guarded(self._afterwards.popleft())

    def _patience(self) -> float:
        if self._chain.done:
            return 0.0 if self._afterwards else _LONGEST
        return _SOON if self._afterwards else _LATER

    def _empty_pipe(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._pipe[0] if self._pipe else -1, 4096)


def _guarded(call: Callable[[], T]) -> T | None:
    """Call it; whatever it raises ends its own stream and no other."""
    try:
        return call()
    except BaseException as failure:
        crash = getattr(getattr(call, "__self__", None), "crash", None)
        if crash is not None:
            crash(failure)  # its error has the cause
        else:
            _log_failure("a message to the reader failed", failure)
        return None


def _log_failure(what: str, failure: BaseException) -> None:
    with contextlib.suppress(BaseException):  # an application's handler may raise, too
        logger.error("%s", what, exc_info=failure)
