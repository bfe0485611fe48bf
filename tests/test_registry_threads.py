"""AdapterRegistry among threads: a slow submit delays nobody, and the choice counts it."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import registry_support as support
from registry_support import Recording, finish
from support import SOON

from vllm_http import AdapterRegistry, InvalidRequest, TaskRequest, TokenStream, WorkerError


engine, registry, pool = support.engine, support.registry, support.pool


class Slow(Recording):
    """An adapter whose submit takes its time, as one with a large picture in its task does."""

    def __init__(self, inner: Recording) -> None:
        super().__init__(inner.inner)
        self.entered, self.go_on = threading.Event(), threading.Event()

    def submit(self, task: TaskRequest) -> TokenStream:
        """Wait to be told."""
        self.entered.set()
        assert self.go_on.wait(SOON)
        return super().submit(task)


@pytest.fixture
def slow(registry: AdapterRegistry, pool: list[Recording]) -> Iterator[Slow]:
    """The only replica of the pool so far."""
    registry.unbind("p", "b")
    slow = Slow(pool[0])
    registry.bind("p", "a", slow)
    yield slow
    slow.go_on.set()


@pytest.fixture
def submitting(registry: AdapterRegistry, slow: Slow) -> Iterator[queue.SimpleQueue[object]]:
    """What becomes of a task "slow" whose submit has begun on another thread."""
    told: queue.SimpleQueue[object] = queue.SimpleQueue()

    def submit() -> None:
        try:
            told.put(registry.submit("p", TaskRequest(prompt="x", max_tokens=1, job_id="slow")))
        except WorkerError as error:
            told.put(error)

    thread = threading.Thread(target=submit)
    thread.start()
    assert slow.entered.wait(SOON)
    yield told
    slow.go_on.set()
    thread.join(SOON)


def test_a_slow_submit_delays_nobody(
    registry: AdapterRegistry, pool: list[Recording], submitting: queue.SimpleQueue[object]
) -> None:
    """Binding, submitting, cancelling and asking for health go on meanwhile."""
    done = threading.Event()

    def others() -> None:
        registry.bind("p", "b", pool[1])
        finish(registry, "quick")
        registry.cancel("quick")
        registry.health("p")
        done.set()

    thread = threading.Thread(target=others)
    thread.start()

    assert done.wait(SOON)
    thread.join()


def test_a_task_counts_before_it_is_submitted(
    registry: AdapterRegistry, pool: list[Recording], submitting: queue.SimpleQueue[object]
) -> None:
    """Tasks that come at once don't all choose the same replica."""
    registry.bind("p", "b", pool[1])
    for number in range(20):
        finish(registry, f"j{number}")

    assert len(pool[1].taken) == 20


def test_a_job_id_is_live_before_it_is_submitted(
    registry: AdapterRegistry,
    pool: list[Recording],
    slow: Slow,
    submitting: queue.SimpleQueue[object],
) -> None:
    """Of two submits of one job at once, exactly one wins, though on different replicas."""
    registry.bind("p", "b", pool[1])
    with pytest.raises(InvalidRequest, match="live already"):
        registry.submit("p", TaskRequest(prompt="x", job_id="slow"))
    slow.go_on.set()

    stream = submitting.get(timeout=SOON)
    assert isinstance(stream, TokenStream)
    stream.result(SOON)
    assert (slow.taken, pool[1].taken) == (["slow"], [])
    finish(registry, "slow")


def test_many_submits_of_one_job(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """However they fall, one stream comes of them at a time."""
    start = threading.Barrier(8)
    streams: list[TokenStream] = []
    refused: list[WorkerError] = []

    def submit() -> None:
        start.wait(SOON)
        try:
            streams.append(registry.submit("p", TaskRequest(prompt="x", job_id="one")))
        except InvalidRequest as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)

    assert len(streams) + len(refused) == 8
    assert len(pool[0].taken) + len(pool[1].taken) == len(streams)
    for stream in streams:
        stream.close()


def test_a_cancel_during_a_submit_reaches_its_adapter(
    registry: AdapterRegistry, slow: Slow, submitting: queue.SimpleQueue[object]
) -> None:
    """Which knows best whether it has the task already."""
    registry.cancel("slow")

    assert slow.cancelled == ["slow"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InvalidRequest, RuntimeError])
def test_a_submit_that_failed_leaves_nothing(
    registry: AdapterRegistry,
    pool: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
    failure: type[BaseException],
) -> None:
    """No count, and no id: also while the exception is being handled."""
    registry.unbind("p", "b")

    def submit(task: TaskRequest) -> TokenStream:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(pool[0], "submit", submit)
        for _ in range(3):
            with pytest.raises(failure):
                registry.submit("p", TaskRequest(prompt="x", job_id="j"))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pool[0], "submit", submit)
            registry.submit("p", TaskRequest(prompt="x", job_id="j"))
    except failure:
        finish(registry, "j")
    registry.bind("p", "b", pool[1])
    for number in range(40):
        finish(registry, f"j{number}")

    assert len(pool[0].taken) > 1


def test_health_at_the_interpreters_end() -> None:
    """A daemon thread that watches the pool ends without a word when the program does."""
    code = """
import threading
from vllm_http import AdapterRegistry, VllmHttpAdapter

registry = AdapterRegistry()
registry.bind("p", "a", VllmHttpAdapter("http://127.0.0.1:1"))
asked = threading.Event()

def watch():
    threading.main_thread().join()
    print(registry.health("p")["a"].state.value, flush=True)
    asked.set()

threading.Thread(target=watch, daemon=True).start()
threading.Thread(target=asked.wait, args=[5]).start()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "unhealthy\n", "")


def test_health_of_an_adapter_with_a_bug(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """It can't be judged, and hides no other."""

    def health() -> None:
        raise ZeroDivisionError

    pool[1].health = health  # type: ignore[method-assign,assignment]
    found = registry.health("p")

    assert {name: status.state.value for name, status in found.items()} == {
        "a": "healthy",
        "b": "unhealthy",
    }
    assert "ZeroDivisionError" in found["b"].message
