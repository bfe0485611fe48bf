"""What the tests of the client share: an engine, an adapter on it, and ways to wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from vllm_http import (
    Error,
    RetryPolicy,
    TaskRequest,
    Timeout,
    TokenEvent,
    TokenStream,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import (
    Done,
    FakeEngine,
    Finish,
    ReceivedRequest,
    Stage,
    Step,
    Text,
    Usage,
)


COMPLETIONS = "/v1/completions"
SOON = 5.0  # Seconds; nothing that is prompt takes that long, even on a busy machine.
PATIENCE = 40.0  # Seconds; what reads megabytes takes less at a load of 16, and only a hang more.
ONCE = RetryPolicy(attempts=1)
QUICKLY = RetryPolicy(base=0.001, cap=0.001)
LIMIT = 0.3  # Seconds; a clock that is to run out.
EARLY = 0.02  # The test and the adapter read their clocks at slightly different moments.


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine that answers at once."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def adapter(engine: FakeEngine) -> Iterator[VllmHttpAdapter]:
    """An adapter with its defaults."""
    with VllmHttpAdapter(engine.url) as adapter:
        yield adapter


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a script waits for; open at the end, whatever happens."""
    gate = threading.Event()
    yield gate
    gate.set()


def a_task(**fields: Any) -> TaskRequest:
    """A task that the engine accepts; `fields` add to it."""
    known: dict[str, Any] = {"prompt": "Say it", "model": "fake-model", "max_tokens": 5}
    return TaskRequest(**known | fields)


def answer(*texts: str, reason: str = "stop") -> list[Step]:
    """The steps of a whole and honest answer."""
    return [*map(Text, texts), Finish(reason), Usage(), Done()]


def kinds(events: Iterable[TokenEvent]) -> list[str]:
    """The types of events, such as ``"token"``."""
    return [event.type for event in events]


def the_error(events: Iterable[TokenEvent]) -> WorkerError:
    """The error that these events end with."""
    *_, last = events
    assert isinstance(last, Error)
    return last.error


def the_partial(error: WorkerError) -> str:
    """The text that had come before a failure."""
    assert error.partial is not None
    return error.partial.text


def posts(engine: FakeEngine, n: int = 1) -> list[ReceivedRequest]:
    """The completions requests that came, at least `n` of them."""
    return engine.wait_for_requests(n, path=COMPLETIONS)


def sent(engine: FakeEngine) -> int:
    """How many completions requests have come so far."""
    return len(posts(engine, 0))


def wait_until(condition: Callable[[], bool], timeout: float = SOON) -> None:
    """Wait for what has no event of its own."""
    pause = threading.Event()
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        pause.wait(0.002)


@dataclass
class Stopwatch:
    """How long a block took, in seconds."""

    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measure a block."""
    watch = Stopwatch()
    begin = time.monotonic()
    yield watch
    watch.seconds = time.monotonic() - begin


@dataclass
class Signal:
    """A step that tells the test that the script has come this far."""

    event: threading.Event

    def play(self, stage: Stage) -> None:
        self.event.set()


@dataclass
class Drip:
    """A step that sends bytes on the bare socket again and again, until the client leaves."""

    data: bytes
    interval: float = 0.05

    def play(self, stage: Stage) -> None:
        while True:
            stage.answer.wire(self.data)
            stage.answer.pause(self.interval)


@contextmanager
def deaf_port() -> Iterator[str]:
    """The URL of a port where a connect never gets an answer: its backlog is full."""
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def deaf() -> Iterator[str]:
    """A `deaf_port`."""
    with deaf_port() as url:
        yield url


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a port that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def ran_out(error: WorkerError, phase: str, watch: Stopwatch, limit: float = LIMIT) -> None:
    """Check that a clock ended the task, no earlier than it should and promptly."""
    assert isinstance(error, Timeout)
    assert error.phase == phase
    assert limit - EARLY <= watch.seconds < limit + SOON


def failure(stream: TokenStream) -> tuple[WorkerError, list[str]]:
    """The error of a stream, and the kinds of all its events."""
    events = list(stream)
    return the_error(events), kinds(events)


def engine_threads() -> list[str]:
    """The engine's threads that serve a connection."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("fake-engine-connection")]
