"""Models of locks, events and queues: they say whom they block.

Each stands for one of the standard library's, with what it may do to a thread: an interrupt may
come while it waits and after a call has returned, but not between ``with lock:`` and the lock.
"""

from __future__ import annotations

import queue
from collections import deque
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from exploring.world import World

worlds: list[World] = []
"""The one that runs is the last."""


class Lock:
    """`threading.Lock`, and with an owner `threading.RLock`."""

    reentrant = False

    def __init__(self) -> None:
        self._owner: object = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See `threading.Lock`."""
        taken = self._take(timeout if blocking else 0)
        worlds[-1].interruptible()
        return taken

    def _take(self, timeout: float = -1) -> bool:
        world = worlds[-1]
        me = world.me or world
        if not (self.reentrant and self._owner is me):
            if self._count and (timeout == 0 or not world.block(lambda: not self._count, timeout)):
                return False
            self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        """See `threading.Lock`."""
        if not self._count:
            raise RuntimeError("release unlocked lock")
        self._count -= 1
        worlds[-1].interruptible()

    def locked(self) -> bool:
        """See `threading.Lock`."""
        return self._count > 0

    def __enter__(self) -> bool:
        return self._take()

    def __exit__(self, *failure: object) -> None:
        self.release()


class RLock(Lock):
    """`threading.RLock`."""

    reentrant = True


class Event:
    """`threading.Event`: in Python, with a plain lock in it, and points at which it is held."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._flag = False

    def is_set(self) -> bool:
        """See `threading.Event`."""
        return self._flag

    def set(self) -> None:
        """See `threading.Event`."""
        with self._lock:
            worlds[-1].point()
            worlds[-1].interruptible()
            self._flag = True
        worlds[-1].interruptible()

    def clear(self) -> None:
        """See `threading.Event`."""
        with self._lock:
            worlds[-1].point()
            worlds[-1].interruptible()
            self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event`."""
        with self._lock:
            worlds[-1].point()
            worlds[-1].interruptible()
        if not self._flag:
            worlds[-1].block(lambda: self._flag, -1 if timeout is None else timeout)
        with self._lock:
            worlds[-1].point()
            worlds[-1].interruptible()
        worlds[-1].interruptible()
        return self._flag


class SimpleQueue:
    """`queue.SimpleQueue`: in C, so that nothing comes between."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """See `queue.SimpleQueue`."""
        self._items.append(item)
        worlds[-1].interruptible()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """See `queue.SimpleQueue`."""
        patience = -1 if timeout is None else timeout
        if not self._items and not (
            block and worlds[-1].block(lambda: bool(self._items), patience)
        ):
            raise queue.Empty
        item = self._items.popleft()
        worlds[-1].interruptible()
        return item

    def get_nowait(self) -> Any:
        """See `queue.SimpleQueue`."""
        return self.get(block=False)

    def empty(self) -> bool:
        """See `queue.SimpleQueue`."""
        return not self._items

    def qsize(self) -> int:
        """See `queue.SimpleQueue`."""
        return len(self._items)
