"""Closing an adapter ends everything that it has begun."""

from __future__ import annotations

import threading

import pytest
import support
from support import (
    SOON,
    a_task,
    failure,
    kinds,
    posts,
    stopwatch,
    the_error,
    wait_until,
)

from vllm_http import AdapterClosed, RetryPolicy, Timeouts, TokenEvent, VllmHttpAdapter
from vllm_http._run import Run
from vllm_http._slots import Slots
from vllm_http.testing import Cut, FakeEngine, Headers, Stall, Status, Step, Text


engine, adapter, deaf = support.engine, support.adapter, support.deaf


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Stall()], id="no headers"),
        pytest.param([Headers(), Stall()], id="no token"),
        pytest.param([Text("a"), Stall()], id="mid-stream"),
        pytest.param([Text("x" * 500_000)] * 20, id="full queue"),
        pytest.param([Status(503, headers={"retry-after": "29"})], id="backoff"),
    ],
)
def test_close_ends_what_runs(engine: FakeEngine, steps: list[Step]) -> None:
    """A running task ends with AdapterClosed, since its owner did not ask for it."""
    engine.script(*steps)
    adapter = VllmHttpAdapter(engine.url, queue_size=2)
    stream = adapter.submit(a_task())
    posts(engine)

    with stopwatch() as watch:
        adapter.close()
        error, seen = failure(stream)

    assert isinstance(error, AdapterClosed)
    assert (seen[-1], error.retriable, error.job_id) == ("error", False, stream.job_id)
    assert "end" not in seen
    assert watch.seconds < SOON
    engine.wait_idle()


def test_close_ends_what_waits(engine: FakeEngine) -> None:
    """A task without a worker yet ends the same way, and takes no place that comes free."""
    engine.script(Stall())
    adapter = VllmHttpAdapter(engine.url, max_concurrency=1)
    streams = [adapter.submit(a_task()) for _ in range(100)]
    posts(engine)

    adapter.close()

    for stream in streams:
        assert isinstance(the_error(stream), AdapterClosed)
    assert len(posts(engine)) == 1


def test_close_wakes_a_blocked_caller(engine: FakeEngine) -> None:
    """Who waits for an event in another thread gets the Error."""
    engine.script(Headers(), Stall())
    adapter = VllmHttpAdapter(engine.url)
    stream = adapter.submit(a_task())
    taken: list[TokenEvent] = []
    caller = threading.Thread(target=lambda: taken.extend(stream))
    caller.start()
    posts(engine)

    adapter.close()
    caller.join(SOON)

    assert not caller.is_alive()
    assert isinstance(the_error(taken), AdapterClosed)


def test_close_leaves_what_has_ended(engine: FakeEngine) -> None:
    """The events of a task that was over before can still be taken."""
    adapter = VllmHttpAdapter(engine.url)
    stream = adapter.submit(a_task(max_tokens=2))
    wait_until(lambda: stream.done)

    adapter.close()

    assert kinds(stream) == ["started", "token", "token", "end"]


def test_submit_after_close(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A closed adapter takes no task, and its other calls say why."""
    adapter.close()

    with pytest.raises(AdapterClosed):
        adapter.submit(a_task())
    with pytest.raises(AdapterClosed):
        adapter.health()
    with pytest.raises(AdapterClosed):
        adapter.models()
    assert engine.requests == []


def test_submit_after_close_starts_no_thread(engine: FakeEngine) -> None:
    """Nothing would ever end it."""
    adapter = VllmHttpAdapter(engine.url)
    adapter.close()
    before = set(threading.enumerate())

    with pytest.raises(AdapterClosed):
        adapter.submit(a_task())

    assert set(threading.enumerate()) <= before


def test_close_twice(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Closing is idempotent, from many threads too, and cancel of an old id is fine after it."""
    engine.script(Stall())
    stream = adapter.submit(a_task())
    closers = [threading.Thread(target=adapter.close) for _ in range(8)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(SOON)

    adapter.close()
    adapter.cancel(stream.job_id)
    stream.cancel()

    assert not any(closer.is_alive() for closer in closers)
    assert isinstance(the_error(stream), AdapterClosed)


def test_unused_adapter_has_no_thread(engine: FakeEngine) -> None:
    """An adapter that was never asked for anything costs nothing."""
    before = threading.active_count()

    with VllmHttpAdapter(engine.url):
        assert threading.active_count() == before


def test_threads_are_gone_after_close(engine: FakeEngine) -> None:
    """close() returns when all threads of the adapter have ended, tasks running or not."""
    before = set(threading.enumerate())
    adapter = VllmHttpAdapter(engine.url)
    streams = [adapter.submit(a_task()) for _ in range(5)]
    for _ in range(5):
        engine.script(Stall())
    streams += [adapter.submit(a_task()) for _ in range(5)]

    adapter.close()

    ours = [
        thread.name
        for thread in set(threading.enumerate()) - before
        if not thread.name.startswith("fake-engine")
    ]
    assert ours == []
    assert all(stream.done for stream in streams)


def test_close_is_bounded(deaf: str) -> None:
    """close() waits no longer than it was told, even for a connect without an answer."""
    adapter = VllmHttpAdapter(deaf, timeouts=Timeouts(connect=4), retry=RetryPolicy(attempts=1))
    stream = adapter.submit(a_task())

    with stopwatch() as watch:
        adapter.close(timeout=0.2)
        error = the_error(stream)

    assert isinstance(error, AdapterClosed)
    assert watch.seconds < 3.5


@pytest.mark.parametrize(
    ("steps", "deadline_ms"),
    [
        pytest.param([Text("a"), Cut("rst")], None, id="reset"),
        pytest.param([Stall()], 200, id="deadline"),
        pytest.param([Status(503)], None, id="refused"),
    ],
)
def test_close_closes_the_sockets(steps: list[Step], deadline_ms: int | None) -> None:
    """No connection outlives its adapter, though the caller keeps the error."""
    with FakeEngine(keep_alive=60) as engine:
        engine.script(*steps)
        adapter = VllmHttpAdapter(engine.url, retry=RetryPolicy(attempts=1))
        error, _ = failure(adapter.submit(a_task(deadline_ms=deadline_ms)))

        adapter.close()

        wait_until(lambda: not support.engine_threads(), timeout=2)
        assert error is not None


@pytest.mark.parametrize("timeout", [float("inf"), 1e10, 0, -1.0])
def test_close_takes_any_number(engine: FakeEngine, timeout: float) -> None:
    """As long as it takes, or not at all; more than the system's calls take is no error."""
    engine.script(Stall())
    adapter = VllmHttpAdapter(engine.url)
    stream = adapter.submit(a_task())
    posts(engine)

    adapter.close(timeout)

    assert isinstance(the_error(stream), AdapterClosed)


def test_close_before_the_reader_starts(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit that has found the adapter open, and starts the reader once it is closed."""
    adapter = VllmHttpAdapter(engine.url)
    check = Slots.check_room

    def check_and_be_overtaken(self: Slots, job_id: str | None = None) -> None:
        check(self, job_id)
        monkeypatch.setattr(Slots, "check_room", check)
        adapter.close()

    monkeypatch.setattr(Slots, "check_room", check_and_be_overtaken)

    with pytest.raises(AdapterClosed):
        adapter.submit(a_task())

    assert not [t for t in threading.enumerate() if t.name.startswith("vllm_http")]


def test_close_inside_admission(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler closes the adapter between the last look and the task's admission."""
    adapter = VllmHttpAdapter(engine.url)
    know = Slots._know

    def close_and_know(self: Slots, run: Run) -> None:
        adapter.close()
        know(self, run)

    monkeypatch.setattr(Slots, "_know", close_and_know)

    with pytest.raises(AdapterClosed):
        adapter.submit(a_task())

    assert (adapter._slots._live, adapter.running, adapter.waiting) == ({}, 0, 0)
