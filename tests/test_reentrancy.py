"""A stream may be closed inside our own locks: the garbage collector and signals ask nobody.

Any allocation may run the collector, which ends a generator that is part of a cycle, and with it
the `with` block that the generator holds. So whatever thread is inside a lock may come again.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import pytest
import support
from locks import locks_of
from registry_support import Recording
from support import SOON, a_task, kinds, posts, wait_until

from vllm_http import (
    AdapterRegistry,
    RetryPolicy,
    TaskRequest,
    TokenEvent,
    TokenStream,
    VllmHttpAdapter,
)
from vllm_http._bell import Bell
from vllm_http._connections_exchange import Exchange
from vllm_http.testing import FakeEngine, Headers, Normal, Stall, Status, Text, Tokens, Wait


RLOCK = type(threading.RLock())

engine, adapter, gate = support.engine, support.adapter, support.gate


def in_time(work: Callable[[], object]) -> bool:
    """Whether it comes to its end; on a thread of its own, since it may never do."""
    ended = threading.Event()

    def run() -> None:
        work()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    return ended.wait(SOON)


@pytest.fixture(autouse=True)
def _collect_by_hand() -> Iterator[None]:
    """Let cycles be collected only where a test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def forget_in_a_cycle(view: Callable[..., Iterator[TokenEvent]], *args: object) -> None:
    """Leave a generator suspended in mid-stream, where only the collector finds it."""
    cycle: list[object] = []
    events = view(*args, cycle)
    cycle.append(events)
    assert next(events).type == "started"


def view(stream: TokenStream, cycle: list[object]) -> Iterator[TokenEvent]:
    """What web frameworks hold while a client reads."""
    with stream:
        yield from stream


@pytest.mark.parametrize("thread", ["worker", "version", "probe", "reader"])
def test_collected_while_a_thread_is_started(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    """submit and health start threads inside their locks, and a Thread allocates."""
    engine.script(Headers(), Stall())
    with VllmHttpAdapter(engine.url) as old, VllmHttpAdapter(engine.url) as new:
        adapter = old if thread in ("worker", "probe") else new
        forget_in_a_cycle(view, old.submit(a_task()))
        start = threading.Thread.start

        def collect_and_start(self: threading.Thread) -> None:
            if self.name == f"vllm_http-{thread}":
                gc.collect()
            start(self)

        monkeypatch.setattr(threading.Thread, "start", collect_and_start)

        assert in_time(lambda: (adapter.submit(a_task()).result(), adapter.health()))
        assert posts(engine)[0].hung_up.wait(SOON)


class Collecting(deque[TokenEvent]):
    """A queue that runs the garbage collector when it grows."""

    def extend(self, events: Iterable[TokenEvent]) -> None:
        gc.collect()
        super().extend(events)


def test_collected_while_tokens_are_put(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """A worker that ends its own stream inside the queue goes on to other tasks."""
    engine.script(Headers(), Wait(gate), Text("a"), Stall())
    stream = adapter.submit(a_task())
    stream.receiver.queue = Collecting(stream.receiver.queue)
    forget_in_a_cycle(view, stream)
    del stream

    gate.set()

    assert posts(engine)[0].hung_up.wait(SOON)
    assert in_time(adapter.close)


@pytest.mark.parametrize("end", [TokenStream.close, TokenStream.cancel])
def test_ended_inside_the_queue(
    engine: FakeEngine, adapter: VllmHttpAdapter, end: Callable[[TokenStream], None]
) -> None:
    """A signal handler may end the very stream that its thread is taking from."""
    engine.script(Tokens(1), Stall())
    stream = adapter.submit(a_task())
    posts(engine)

    def interrupted() -> None:
        with stream.receiver.mutex:
            end(stream)

    assert in_time(interrupted)
    assert kinds(stream)[-1:] in ([], ["end"])
    assert posts(engine)[0].hung_up.wait(SOON)


def test_closed_inside_admission(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A signal handler may close the adapter whose submit its thread is in."""
    engine.script(Stall())
    stream = adapter.submit(a_task())

    def interrupted() -> None:
        with adapter._slots._lock:
            adapter.cancel(stream.job_id)
            adapter.close(timeout=0)

    assert in_time(interrupted)
    assert kinds(stream) == ["end"]


def test_aborted_inside_its_exchange() -> None:
    """An exchange whose thread closes the stream that it serves is just aborted."""
    exchange = Exchange()

    def interrupted() -> None:
        with exchange._lock:
            exchange.abort()

    assert in_time(interrupted)
    assert not exchange.detach()


class Collects(Recording):
    """An adapter that runs the garbage collector when it takes a task."""

    def submit(self, task: TaskRequest) -> TokenStream:
        gc.collect()
        return super().submit(task)


def test_cancelled_inside_the_registry(engine: FakeEngine) -> None:
    """A generator that cancels by id may be collected in the registry's submit."""

    def view(registry: AdapterRegistry, cycle: list[object]) -> Iterator[TokenEvent]:
        stream = registry.submit("p", a_task(job_id="old"))
        try:
            yield from stream
        finally:
            registry.cancel("old")

    engine.script(Headers(), Stall())
    with VllmHttpAdapter(engine.url) as adapter, AdapterRegistry() as registry:
        registry.bind("p", "a", Collects(adapter))
        forget_in_a_cycle(view, registry)

        assert in_time(lambda: registry.submit("p", a_task()).result())
        assert posts(engine)[0].hung_up.wait(SOON)


class Closes(logging.Handler):
    """A log handler that closes a stream."""

    def __init__(self, stream: TokenStream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        self._stream.close()


def test_closed_inside_a_log_handler(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No lock is held while the application's log handlers run."""
    engine.script(Stall())
    other = adapter.submit(a_task())
    posts(engine)
    caplog.set_level(logging.INFO, "vllm_http")
    monkeypatch.setattr(logging.getLogger("vllm_http"), "handlers", [Closes(other)])

    assert in_time(lambda: adapter.submit(a_task()).result())
    assert posts(engine)[0].hung_up.wait(SOON)


def test_no_plain_lock_is_within_reach_of_a_finalizer(engine: FakeEngine) -> None:
    """A generator that is collected may close its stream, or its adapter, inside any lock of ours.

    What is left has no owner that runs Python code while it has it: a bell's lock is its signal.
    """
    engine.script(Status(503))
    engine.script(Normal())
    engine.script(Tokens(1), Stall())
    with VllmHttpAdapter(engine.url, proxies={"https": "http://127.0.0.1:9"}) as adapter:
        adapter.submit(a_task(max_tokens=1)).result()  # its connection is idle then
        adapter.health()
        answers = adapter.map([a_task()] * 2)
        with adapter.submit(a_task()) as stream:
            next(stream)
            next(answers)
            found = locks_of(adapter, stream, answers)
            plain = [lock.owners for lock in found if not isinstance(lock.lock, RLOCK)]

    assert len(found) > len(plain) > 0
    assert {owner for owners in plain for owner in owners} == {"Bell"}


class Owner:
    """Closes its stream when it goes, and is in a cycle."""

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream
        self._self = self

    def __del__(self) -> None:
        self._stream.close()


def test_collected_inside_a_backoff(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that waits for its next try is the one whose stream is closed there."""
    engine.script(Status(503))
    wait = Bell.wait

    def collect(self: Bell, timeout: float | None = None) -> None:
        if threading.current_thread().name == "vllm_http-worker":
            gc.collect()
        wait(self, timeout)

    monkeypatch.setattr(Bell, "wait", collect)
    policy = RetryPolicy(base=3600, cap=3600, max_retry_after=3600)
    with VllmHttpAdapter(engine.url, retry=policy) as adapter:
        adapter._version._known = "0"
        Owner(adapter.submit(a_task()))

        wait_until(lambda: adapter.running == 0)
