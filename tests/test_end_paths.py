"""An exception, once, in what ends a task: that task ends all the same, and the next one runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import support
from support import SOON, a_task, answer, wait_until

from vllm_http import RetryPolicy, StreamingError, VllmHttpAdapter, WorkerError
from vllm_http._connections_exchange import Exchange
from vllm_http._gate import Gate
from vllm_http._reader import Loop
from vllm_http._reading import Reading
from vllm_http._receiver import Receiver
from vllm_http._run import Run
from vllm_http._slots import Slots
from vllm_http._timeline import Timeline
from vllm_http._transport_body import Body
from vllm_http.testing import Cut, FakeEngine, Stall, Status, Step, Text, Wait


engine = support.engine

ENDS: dict[str, list[Step]] = {
    "whole": answer("a", "b"),
    "refused": [Status(400)],
    "cut": [Text("a"), Wait(0.01), Cut("rst")],
    "late": [Text("a"), Stall()],
    "silent": [Stall()],
}
STEPS: list[tuple[type, str]] = [
    *((Run, name) for name in ("fail", "succeed", "announce", "_finish", "_settle", "let_go")),
    *((Run, name) for name in ("_wake_worker", "metrics", "_end_what_is_due", "accepted")),
    *((Gate, name) for name in ("finish", "begin", "say_last")),
    *((Slots, name) for name in ("leave", "release", "_go_on", "_log")),
    *((Reading, name) for name in ("__init__", "begin", "_conclude", "_fail", "leave", "_release")),
    *((Body, name) for name in ("release", "unwatch", "dont_block")),
    *((Loop, name) for name in ("at", "soon", "watch", "unwatch", "afterwards", "_wake_callers")),
    (Receiver, "_store"),
    (Timeline, "metrics"),
    (Exchange, "abort"),
]


def break_once(patch: pytest.MonkeyPatch, owner: type, name: str, *, before: bool) -> None:
    """The method raises the next time that a thread of ours calls it, before its work or after."""
    method: Callable[..., Any] = getattr(owner, name)
    broken = threading.Event()

    @functools.wraps(method)
    def raise_once(*args: Any, **kwargs: Any) -> Any:
        ours = threading.current_thread().name in ("vllm_http-worker", "vllm_http-reader")
        breaks = ours and not broken.is_set()
        if breaks and before:
            broken.set()
            raise MemoryError(name)
        result = method(*args, **kwargs)
        if breaks and not broken.is_set():
            broken.set()
            raise MemoryError(name)
        return result

    patch.setattr(owner, name, raise_once)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("end", "owner", "name"),
    # Nobody watches a refusal's words; where letting go of them fails, the collector has to do it.
    [(end, *step) for end in ENDS for step in STEPS if (end, step[0]) != ("refused", Body)],
)
def test_end_that_fails_half_way_is_an_end(
    engine: FakeEngine, end: str, owner: type, name: str, before: bool
) -> None:
    """Whoever waits for it hears of it; its place, its id and the engine are free."""
    engine.script(*ENDS[end])
    options: dict[str, Any] = {"max_concurrency": 1, "retry": RetryPolicy(attempts=1)}
    with VllmHttpAdapter(engine.url, **options) as adapter:
        slots = adapter._slots
        with pytest.MonkeyPatch.context() as patch:
            break_once(patch, owner, name, before=before)
            for _ in range(2):  # it may have failed before the engine had the first one
                with suppress(WorkerError):
                    adapter.submit(a_task(deadline_ms=200)).result(timeout=SOON)
            wait_until(lambda: not (engine.running or adapter.running))

        assert adapter.submit(a_task()).result(timeout=SOON).error is None
        wait_until(lambda: not (adapter.running or slots._live or slots._unlogged))


def test_close_ends_the_others_where_one_end_fails(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All streams end, and the threads are gone: the next test would see them."""
    metrics = Timeline.metrics
    failures = iter([MemoryError("metrics")])

    def fail_once(self: Timeline, tally: Any) -> Any:
        for failure in failures:
            raise failure
        return metrics(self, tally)

    for _ in range(3):
        engine.script(Text("a"), Stall())
    adapter = VllmHttpAdapter(engine.url)
    streams = [adapter.submit(a_task()) for _ in range(3)]
    for stream in streams:
        next(stream)
    monkeypatch.setattr(Timeline, "metrics", fail_once)

    adapter.close()

    errors = []
    for stream in streams:
        with pytest.raises(WorkerError) as caught:
            stream.result(timeout=SOON)
        errors.append(type(caught.value).__name__)
    assert sorted(errors) == ["AdapterClosed", "AdapterClosed", "Unknown"]


def test_broken_step_before_the_end_is_told(engine: FakeEngine) -> None:
    """The harness does break something: a cut that is told as one, were it whole."""
    engine.script(*ENDS["cut"])
    with VllmHttpAdapter(engine.url) as adapter, pytest.raises(StreamingError):
        adapter.submit(a_task()).result(timeout=SOON)
