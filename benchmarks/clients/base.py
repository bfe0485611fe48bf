"""What every client does, and how the threaded ones do it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol


Take = Callable[[str], object]
"""The caller's loop body."""

EXTRA = {"ignore_eos": True}
"""A real engine stops earlier without it."""


class Job(NamedTuple):
    """One request, and who gets its tokens."""

    model: str
    max_tokens: int
    take: Take

    def body(self) -> dict[str, Any]:
        """The JSON that goes to /v1/completions."""
        return {
            "model": self.model,
            "prompt": "Hello, world!",
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **EXTRA,
        }


class Skipped(Exception):
    """The client cannot do this; the message says why."""


class Client(Protocol):
    """What is compared."""

    def sequence(self, jobs: Iterable[Job]) -> None:
        """One job after the other; the next is taken only when the last is over."""
        ...

    def together(self, jobs: list[Job]) -> None:
        """All jobs at once."""
        ...

    def bulk(self, jobs: list[Job], in_flight: int) -> None:
        """All jobs, that many at once."""
        ...


class Threaded(ABC):
    """A thread for each stream, which is also its consumer."""

    @abstractmethod
    def drain(self, job: Job) -> None:
        """Drain one answer in the calling thread."""

    def sequence(self, jobs: Iterable[Job]) -> None:
        """One job after the other."""
        for job in jobs:
            self.drain(job)

    def together(self, jobs: list[Job]) -> None:
        """All jobs at once."""
        threads = [threading.Thread(target=self.drain, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def bulk(self, jobs: list[Job], in_flight: int) -> None:
        """All jobs, that many at once."""
        with ThreadPoolExecutor(in_flight) as pool:
            for _ in pool.map(self.drain, jobs):
                pass
