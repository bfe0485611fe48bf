"""A source of events that does as it is told."""

from __future__ import annotations

import queue
from collections.abc import Iterable

from vllm_http import Metrics, TokenEvent


METRICS = Metrics(tokens_generated=1)


class Source:
    """Events, exceptions and silence, in order.

    Args:
        items: What `get` returns or raises, one by one.

    Attributes:
        closed: How often `close` was called.
    """

    def __init__(self, *items: TokenEvent | BaseException | None) -> None:
        self.closed = 0
        self._items: queue.SimpleQueue[TokenEvent | BaseException | None] = queue.SimpleQueue()
        self.add(items)

    def add(self, items: Iterable[TokenEvent | BaseException | None]) -> None:
        """Have more behind the others."""
        for item in items:
            self._items.put(item)

    def get(self, timeout: float | None = None) -> TokenEvent | None:
        """The next item."""
        item = self._items.get(timeout=timeout) if timeout != 0 else self._items.get_nowait()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Count it, and wake who waits."""
        self.closed += 1
        self._items.put(None)


class Numbered(Source):
    """A source whose events have ids, as a relay's have."""

    last_id: str | None = None

    def get(self, timeout: float | None = None) -> TokenEvent | None:
        """The next item; the id is the number of events so far."""
        event = super().get(timeout)
        self.last_id = str(int(self.last_id or 0) + 1)
        return event
