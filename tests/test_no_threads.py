"""A system that gives no more threads: said clearly, and over when it is over."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
import support
from support import SOON, a_task, answer, posts, wait_until

from vllm_http import AdapterClosed, CapacityExceeded, HealthState, Started, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Stall, Text, Wait


engine, adapter = support.engine, support.adapter

Deny = Callable[[str], list[str]]


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Deny:
    """Have the next start of this thread fail; the list tells whether it has."""
    start = threading.Thread.start

    def deny(name: str) -> list[str]:
        denied: list[str] = []

        def may_fail(self: threading.Thread) -> None:
            if self.name == f"vllm_http-{name}" and not denied:
                denied.append(name)
                raise RuntimeError("can't start new thread")
            start(self)

        monkeypatch.setattr(threading.Thread, "start", may_fail)
        return denied

    return deny


@pytest.mark.parametrize("thread", ["reader", "worker"])
def test_task_without_a_thread(adapter: VllmHttpAdapter, deny: Deny, thread: str) -> None:
    """It is refused with hope, its job_id stays free, and a later one runs."""
    denied = deny(thread)

    with pytest.raises(CapacityExceeded, match="can't start new thread") as caught:
        adapter.submit(a_task(job_id="mine"))

    assert denied == [thread]
    assert caught.value.retriable
    assert adapter.submit(a_task(job_id="mine")).result(timeout=SOON).error is None


def test_waiting_task_is_not_left_behind(engine: FakeEngine, deny: Deny) -> None:
    """A place whose thread could not be started goes to the next task."""
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        deny("worker")
        with pytest.raises(CapacityExceeded):
            adapter.submit(a_task())

        streams = [adapter.submit(a_task()) for _ in range(3)]
        assert all(stream.result(timeout=SOON).error is None for stream in streams)


def test_version_without_a_thread(adapter: VllmHttpAdapter, deny: Deny) -> None:
    """It is not known, and Started does not wait for it."""
    denied = deny("version")

    started, *_, end = adapter.submit(a_task())

    assert denied == ["version"]
    assert isinstance(started, Started)
    assert (started.engine_version, end.type) == ("unknown", "end")


def test_small_calls_without_a_thread(adapter: VllmHttpAdapter, deny: Deny) -> None:
    """health() says so instead of raising, the others raise, and the next call works."""
    deny("probe")
    health = adapter.health()
    deny("probe")
    with pytest.raises(CapacityExceeded):
        adapter.models()

    assert health.state is HealthState.UNHEALTHY
    assert "thread" in health.message
    assert adapter.health().state is HealthState.HEALTHY


@pytest.mark.parametrize("thread", ["reader", "worker", "version", "probe"])
def test_close_after_a_failure(engine: FakeEngine, deny: Deny, thread: str) -> None:
    """close() ends what runs and joins all threads, though one could never be started."""
    before = set(threading.enumerate())
    engine.script(Stall())
    adapter = VllmHttpAdapter(engine.url)
    denied = deny(thread)
    adapter.health()
    if thread in ("reader", "worker"):
        with pytest.raises(CapacityExceeded):
            adapter.submit(a_task())
    stream = adapter.submit(a_task())
    posts(engine)

    adapter.close()

    left = {t.name for t in set(threading.enumerate()) - before}
    assert denied == [thread]
    assert stream.done
    assert not [name for name in left if name.startswith("vllm_http")]


def test_close_while_a_thread_is_being_started(
    adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close() in the moment between a thread's making and its start does not trip over it."""
    start, closing, closed = threading.Thread.start, threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def close() -> None:
        closing.set()
        try:
            adapter.close()
        except RuntimeError as failure:
            failures.append(failure)
        closed.set()

    closer = threading.Thread(target=close)

    def close_and_start(self: threading.Thread) -> None:
        if self.name == "vllm_http-probe" and not closing.is_set():
            start(closer)
            closing.wait(SOON)
            closed.wait(0.2)  # time to find the thread, if it is to be found
        start(self)

    monkeypatch.setattr(threading.Thread, "start", close_and_start)
    with suppress(AdapterClosed):  # unless the answer was faster
        adapter.models()
    closer.join(SOON)

    assert failures == []


def test_main_thread_without_a_thread(
    adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must not be interrupted there needs a thread too: refused in the same words."""

    def start_new_thread(*call: object) -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start_new_thread)
        with pytest.raises(CapacityExceeded, match="no thread to be had: can't start new thread"):
            adapter.submit(a_task())

    assert adapter.submit(a_task()).result(timeout=SOON).error is None


def test_hundreds_that_wait_end_where_no_thread_is_left(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them, however many there are."""
    go_on = threading.Event()
    engine.script(Text("a"), Wait(go_on), *answer("b"))
    start = threading.Thread.start

    def may_fail(self: threading.Thread) -> None:
        if self.name == "vllm_http-worker":
            raise RuntimeError("can't start new thread")
        start(self)

    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        first = adapter.submit(a_task())
        waiting = [adapter.submit(a_task()) for _ in range(1000)]
        assert isinstance(next(first), Started)
        wait_until(lambda: not adapter._slots._crew._threads)  # idle ones are gone
        monkeypatch.setattr(threading.Thread, "start", may_fail)
        go_on.set()

        assert first.result(timeout=SOON).text == "ab"
        for stream in waiting:
            with pytest.raises(CapacityExceeded, match="no thread to be had"):
                stream.result(timeout=SOON)
        assert (adapter.running, adapter.waiting) == (0, 0)
