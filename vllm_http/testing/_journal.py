"""What an engine was asked, is doing, and has been told to do next."""

from __future__ import annotations

import threading
from collections import deque

from ._generation import Generation
from ._metrics import Load
from ._request import ReceivedRequest
from ._steps import Step


class Journal:
    """The memory that all connections of an engine share; every method is thread-safe."""

    def __init__(self) -> None:
        # Guards all the rest; notified when a request arrives and when a generation is over.
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._generations = 0
        self._load = Load()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """A copy, in the order of arrival."""
        with self._changed:
            return list(self._requests)

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
