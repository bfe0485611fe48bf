"""Models of pipes and of the selector that waits for them."""

from __future__ import annotations

import itertools
import selectors
from typing import Any

from exploring.locks import worlds


_numbers = itertools.count(1000)


def pipe() -> tuple[int, int]:
    """See `os.pipe`; the numbers are never used again."""
    ends = next(_numbers), next(_numbers)
    worlds[-1].files.update(zip(ends, itertools.repeat([0])))
    return ends


def write(number: int, data: bytes) -> None:
    """See `os.write`."""
    if number not in worlds[-1].files:
        raise OSError("it is closed")
    worlds[-1].files[number][0] += len(data)
    worlds[-1].interruptible()


def empty(number: int, most: int) -> None:
    """See `os.read`."""
    if number not in worlds[-1].files:
        raise OSError("it is closed")
    worlds[-1].files[number][0] = 0


def close(number: int) -> None:
    """See `os.close`; finalizers of earlier runs come here too."""
    worlds[-1].files.pop(number, None)


class Selector:
    """`selectors.DefaultSelector` for pipes."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}
        self.closed = False
        self._busy = False

    def register(self, number: int, events: int, data: Any = None) -> None:
        """See `selectors`."""
        if number in self._keys:
            raise KeyError(f"{number} is registered")
        self._keys[number] = selectors.SelectorKey(number, number, events, data)

    def unregister(self, number: int) -> None:
        """See `selectors`."""
        del self._keys[number]

    def select(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors`."""
        assert not self.closed, "select on a closed selector"
        assert not self._busy, "two threads wait at one selector"
        self._busy = True
        try:
            if timeout > 0 and not self._ready():
                worlds[-1].block(lambda: bool(self._ready()), timeout)
            return self._ready()
        finally:
            self._busy = False

    def _ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        files = worlds[-1].files
        return [(key, key.events) for n, key in self._keys.items() if files.get(n, [0])[0]]

    def get_map(self) -> dict[int, selectors.SelectorKey]:
        """See `selectors`."""
        return self._keys

    def close(self) -> None:
        """See `selectors`."""
        self.closed = True
