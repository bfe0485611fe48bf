"""What an engine was asked, is doing, and has been told to do next."""

from __future__ import annotations

import threading
from collections import deque

from ._generation import Generation
from ._metrics import Load
from ._request import ReceivedRequest
from ._stage import ConnectionStep, Step


class Journal:
    """The memory that all connections of an engine share; every method is thread-safe."""

    def __init__(self) -> None:
        # Guards all the rest; notified when anything comes or goes.
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._openings: deque[tuple[ConnectionStep, ...]] = deque()
        self._connections = 0
        self._open = 0
        self._generations = 0
        self._load = Load()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """A copy, in the order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many connections have come."""
        with self._changed:
            return self._connections

    @property
    def open_connections(self) -> int:
        """How many of them are not over."""
        with self._changed:
            return self._open

    @property
    def running(self) -> int:
        """How many generations have begun and are not over."""
        with self._changed:
            return self._load.running

    def metrics_text(self, model: str) -> str:
        """The load, as /metrics tells it."""
        with self._changed:
            return self._load.text(model)

    def queue(self, steps: tuple[Step, ...]) -> None:
        """Keep a script for the next generation that has none."""
        with self._changed:
            self._scripts.append(steps)

    def queue_opening(self, steps: tuple[ConnectionStep, ...]) -> None:
        """Keep a script for the next connection that has none."""
        with self._changed:
            self._openings.append(steps)

    def connected(self) -> tuple[int, tuple[ConnectionStep, ...]]:
        """Note a connection; how many there have been now, and its script, empty where none is."""
        with self._changed:
            self._connections += 1
            self._open += 1
            self._changed.notify_all()
            return self._connections, self._openings.popleft() if self._openings else ()

    def disconnected(self) -> None:
        """Note the end of a connection."""
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def arrived(self, request: ReceivedRequest) -> None:
        """Note a request that generates nothing."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def begun(self, request: ReceivedRequest) -> tuple[int, tuple[Step, ...] | None]:
        """Note a request for text; how many there are now, and its script if one is queued."""
        # One step, so that who sees the request also sees it running, and scripts keep the order.
        with self._changed:
            self._requests.append(request)
            self._generations += 1
            self._load.running += 1
            self._changed.notify_all()
            script = self._scripts.popleft() if self._scripts else None
            return self._generations, script

    def count(self, generation: Generation) -> None:
        """Add to the counters what a generation has come to."""
        with self._changed:
            self._load.add(generation)

    def over(self) -> None:
        """Note the end of a generation, good or bad."""
        with self._changed:
            self._load.running -= 1
            self._changed.notify_all()

    def wait_for_requests(self, n: int, timeout: float, path: str | None) -> list[ReceivedRequest]:
        """Wait until `n` requests (of this path, where given) have come, and return them all.

        Raises:
            TimeoutError: fewer came within `timeout` seconds.
        """

        def matching() -> list[ReceivedRequest]:
            return [r for r in self._requests if path is None or r.route == path]

        with self._changed:
            if not self._changed.wait_for(lambda: len(matching()) >= n, timeout):
                raise TimeoutError(
                    f"waited {timeout} s for {n} requests to {path or 'any path'};"
                    f" there came {self._requests}"
                )
            return matching()

    def wait_idle(self, timeout: float) -> None:
        """Wait until nothing is being generated.

        Raises:
            TimeoutError: something still is after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._load.running == 0, timeout):
                raise TimeoutError(f"{self._load.running} requests still run after {timeout} s")

    def wait_for_connections(self, n: int, timeout: float) -> None:
        """Wait until `n` connections have come.

        Raises:
            TimeoutError: fewer came within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._connections >= n, timeout):
                raise TimeoutError(
                    f"waited {timeout} s for {n} connections; there came {self._connections}"
                )

    def wait_disconnected(self, timeout: float) -> None:
        """Wait until no connection is open.

        Raises:
            TimeoutError: some still are after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._open == 0, timeout):
                raise TimeoutError(f"{self._open} connections are still open after {timeout} s")
