"""A look-up of the engine's name that does not come back: nothing can interrupt it.

The caller is not held up: a cancel, a close, and each clock but ``connect``, which begins behind
the look-up, end what waits for it. The thread goes when the resolver does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import (
    LIMIT,
    QUICKLY,
    SOON,
    Stopwatch,
    a_task,
    failure,
    kinds,
    ran_out,
    stopwatch,
    wait_until,
)

from vllm_http import (
    AdapterClosed,
    End,
    EngineUnavailable,
    Error,
    HealthState,
    Timeout,
    Timeouts,
    TokenStream,
    VllmHttpAdapter,
    _probe,
)


NOWHERE = "engine.invalid"


class Resolver:
    """In place of the system's: for `NOWHERE` it says nothing until it is let go, then "unknown".

    Attributes:
        asked: Look-ups that have begun.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self._original = socket.getaddrinfo

    def __call__(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NOWHERE:
            return self._original(host, *args, **kwargs)
        self.asked += 1
        self.gate.wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """One that hangs until the test is over."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.gate.set()


@pytest.fixture
def adapter(resolver: Resolver) -> Iterator[VllmHttpAdapter]:
    """An adapter for an engine whose name is not found; nobody else asks for it."""
    adapter = VllmHttpAdapter(f"http://{NOWHERE}")
    adapter._version._known = "0"
    yield adapter
    resolver.gate.set()
    adapter.close()


def looking_up(adapter: VllmHttpAdapter, resolver: Resolver, **options: Any) -> TokenStream:
    """A task whose thread is inside the look-up."""
    asked = resolver.asked
    stream = adapter.submit(a_task(), **options)
    wait_until(lambda: resolver.asked > asked)
    return stream


class Caller:
    """A thread that takes all events, and how long it took from `began` on."""

    def __init__(self, stream: TokenStream) -> None:
        self.seen: list[str] = []
        self._stream = stream
        self._thread = threading.Thread(target=self._take_all)
        self._thread.start()
        wait_until(lambda: stream.receiver.bell._waits)

    def _take_all(self) -> None:
        self.seen = kinds(self._stream)

    def ended(self, end: Callable[[], object]) -> Stopwatch:
        """End the stream; how long the caller's iteration went on."""
        with stopwatch() as watch:
            end()
            self._thread.join(SOON)
        assert not self._thread.is_alive()
        return watch


def test_cancel(adapter: VllmHttpAdapter, resolver: Resolver) -> None:
    """The caller's iteration ends at once."""
    stream = looking_up(adapter, resolver)
    caller = Caller(stream)
    watch = caller.ended(stream.cancel)

    assert caller.seen == ["end"]
    assert watch.seconds < SOON
    assert not resolver.gate.is_set()


def test_total(adapter: VllmHttpAdapter, resolver: Resolver) -> None:
    """The task's whole time counts it."""
    with stopwatch() as watch:
        error, seen = failure(looking_up(adapter, resolver, timeouts=Timeouts(total=LIMIT)))

    ran_out(error, "deadline", watch)
    assert seen == ["error"]


def test_connect_clock_begins_behind_it(adapter: VllmHttpAdapter, resolver: Resolver) -> None:
    """As `Timeouts` says: it is the system's resolver that bounds a look-up without a total."""
    stream = looking_up(adapter, resolver, timeouts=Timeouts(connect=0.05))
    threading.Event().wait(LIMIT)
    assert not stream.done

    resolver.gate.set()
    error, _ = failure(stream)

    assert "not known" in error.message


def test_waiting_task(resolver: Resolver) -> None:
    """Who waits behind it for a thread has the queued clock."""
    with VllmHttpAdapter(f"http://{NOWHERE}", max_concurrency=1) as adapter:
        adapter._version._known = "0"
        looking_up(adapter, resolver)
        with stopwatch() as watch:
            error, _ = failure(adapter.submit(a_task(), timeouts=Timeouts(queued=LIMIT)))
        resolver.gate.set()

    ran_out(error, "queued", watch)


def test_close(adapter: VllmHttpAdapter, resolver: Resolver) -> None:
    """close() waits as long as it may and no longer; the task has ended, its thread goes later."""
    stream = looking_up(adapter, resolver)
    with stopwatch() as watch:
        adapter.close(timeout=LIMIT)
    (last,) = stream

    assert watch.seconds < LIMIT + SOON
    assert isinstance(last, Error)
    assert isinstance(last.error, AdapterClosed)


def test_end_of_the_look_up_ends_the_thread(adapter: VllmHttpAdapter, resolver: Resolver) -> None:
    """After a cancel the look-up's answer is for nobody: no request, no second look-up."""
    stream = looking_up(adapter, resolver)
    stream.cancel()
    resolver.gate.set()
    adapter.close()

    (last,) = stream
    assert isinstance(last, End)
    assert resolver.asked == 1


def test_small_calls(
    adapter: VllmHttpAdapter, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their callers leave in time, whatever the look-up does."""
    monkeypatch.setattr(_probe, "WITHIN", LIMIT)
    with ThreadPoolExecutor() as pool, stopwatch() as watch:
        asking, measuring = pool.submit(adapter.health), pool.submit(adapter.metrics)
        health, error = asking.result(SOON), measuring.exception(SOON)

    assert LIMIT <= watch.seconds < SOON
    assert health.state is HealthState.UNHEALTHY
    assert isinstance(error, Timeout)


def test_close_wakes_small_calls(adapter: VllmHttpAdapter, resolver: Resolver) -> None:
    """Their callers go at once; the threads stay in the look-up."""
    with ThreadPoolExecutor(2) as pool, stopwatch() as watch:
        measuring, counting = pool.submit(adapter.metrics), pool.submit(adapter.tokenize, "Hello")
        wait_until(lambda: resolver.asked == 2)

        adapter.close(timeout=0)

        errors = [measuring.exception(SOON), counting.exception(SOON)]

    assert [type(error) for error in errors] == [AdapterClosed, AdapterClosed]
    assert watch.seconds < SOON / 2


@pytest.mark.parametrize(
    ("number", "passing"),
    [
        (socket.EAI_AGAIN, True),
        (socket.EAI_FAIL, True),
        (socket.EAI_NONAME, True),
        (socket.EAI_FAMILY, False),
        (socket.EAI_SERVICE, False),
    ],
)
def test_name_that_is_not_found(
    monkeypatch: pytest.MonkeyPatch, number: int, passing: bool
) -> None:
    """A restarting container has no name for a while: it is looked up again. Nonsense is not."""
    asked = []

    def look_up(host: str, *args: object, **options: object) -> None:
        asked.append(host)
        raise socket.gaierror(number, "Not found")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with VllmHttpAdapter(f"http://{NOWHERE}", retry=QUICKLY) as adapter:
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, EngineUnavailable)
    assert "Not found" in error.message
    assert NOWHERE in error.message
    assert (error.retriable, len(asked)) == ((True, QUICKLY.attempts) if passing else (False, 1))
