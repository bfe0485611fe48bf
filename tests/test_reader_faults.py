"""Our own code raises where a task ends: that task is `Unknown`, and all others go on."""

from __future__ import annotations

import selectors
import threading

import pytest
import support
from support import LIMIT, SOON, a_task, answer, posts, the_error, wait_until

from vllm_http import (
    Completion,
    Timeout,
    Timeouts,
    Unknown,
    VllmHttpAdapter,
    _reading,
    _run,
    _slots,
    _timeline,
)
from vllm_http._transport_body import Body
from vllm_http.testing import FakeEngine, Stall, Text, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


class Fails:
    """Raises in place of a method, so many times; from then on the method is called."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, name: str, times: int = 1) -> None:
        self.method = getattr(owner, name)
        self.left = times
        patch.setattr(owner, name, lambda *args, **kwargs: self(*args, **kwargs))

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self.left and threading.current_thread().name.startswith("vllm_http"):
            self.left -= 1
            raise MemoryError
        return self.method(*args, **kwargs)


FAULTS: list[tuple[type, str, int]] = [
    (owner, method, times)
    for times in (1, 3)
    for owner, method in (
        (_timeline.Timeline, "metrics"),
        (_run.Run, "succeed"),
        (_run.Run, "content_came"),
        (_run.Run, "let_go"),
        (_slots.Slots, "leave"),
        (_slots.Slots, "release"),
        (_reading.Reading, "ready"),
        (_reading.Reading, "_conclude"),
        (Body, "read_ready"),
    )
]
FAULTS += [(Body, "release", 1), (Body, "unwatch", 1)]  # never closed otherwise, rather than twice


@pytest.mark.parametrize(("owner", "method", "times"), FAULTS)
def test_failure_in_an_end_is_of_one_task_alone(
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    gate: threading.Event,
    owner: type,
    method: str,
    times: int,
) -> None:
    """Once or again and again: it comes to an end, the clocks and the other streams go on."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    engine.script(Text("a"), Stall())
    timeouts = Timeouts(stall=LIMIT)
    with VllmHttpAdapter(engine.url, timeouts=timeouts) as adapter:
        adapter.engine_version()
        hit = adapter.submit(a_task())
        assert [next(hit).type, next(hit).type] == ["started", "token"]
        fault = Fails(monkeypatch, owner, method, times)
        gate.set()
        wait_until(lambda: hit.done)
        last = [*hit][-1]
        fault.left = 0

        stalled = adapter.submit(a_task())

        assert last.type in ("end", "error")
        assert isinstance(the_error(stalled), Timeout)
        assert adapter.submit(a_task()).result(SOON).error is None


def test_failure_in_an_end_is_unknown(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """Never a success of which something is missing."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    with VllmHttpAdapter(engine.url) as adapter:
        adapter.engine_version()
        stream = adapter.submit(a_task())
        next(stream)
        Fails(monkeypatch, _timeline.Timeline, "metrics")
        gate.set()

        error = the_error(stream)

    assert isinstance(error, Unknown)
    assert isinstance(error.__cause__, MemoryError)


def test_failure_in_a_clock_ends_its_task(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm that was to end it does, though it can't tell how."""
    engine.script(Text("a"), Stall())
    with VllmHttpAdapter(engine.url, timeouts=Timeouts(stall=LIMIT)) as adapter:
        adapter.engine_version()
        Fails(monkeypatch, _run.Run, "_end_what_is_due")

        assert isinstance(the_error(adapter.submit(a_task())), Unknown)


def test_death_of_the_reader_ends_all_its_tasks(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are read, that are opened, and that wait; the next task has a reader again."""
    for steps in ([Text("a"), Stall()], [Stall()]):
        engine.script(*steps)
    with VllmHttpAdapter(engine.url, max_concurrency=2) as adapter:
        adapter.engine_version()
        streams = [adapter.submit(a_task())]
        assert [next(streams[0]).type, next(streams[0]).type] == ["started", "token"]
        streams += [adapter.submit(a_task()) for _ in range(2)]
        posts(engine, 2)
        dead = adapter._reader._loop.thread

        kill_the_reader(adapter, monkeypatch)

        assert [type(the_error(stream)) for stream in streams] == [Unknown] * 3
        assert dead is not None
        dead.join(SOON)
        assert all(post.hung_up.wait(SOON) for post in posts(engine, 2))
        assert adapter.submit(a_task()).result(SOON).error is None
        wait_until(lambda: (adapter.running, adapter.waiting) == (0, 0))
    assert "the reader's thread died" in caplog.text


def test_death_of_the_reader_in_a_map(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the tasks that are left."""
    engine.script(Stall())
    done: list[Completion] = []
    tasks = (a_task() for _ in range(4))
    for completion in adapter.map(tasks, in_flight=2, ordered=False):
        if not done:
            kill_the_reader(adapter, monkeypatch)
        done.append(completion)

    errors = [type(completion.error) for completion in done]
    assert (len(errors), errors[0], errors[-1]) == (4, type(None), type(None))
    assert set(errors) == {Unknown, type(None)}


def kill_the_reader(adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have its thread raise where nothing is foreseen."""
    selector = adapter._reader._loop.selector
    died = threading.Event()

    def fail(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        died.set()
        raise MemoryError

    monkeypatch.setattr(selector, "select", fail)
    adapter._reader._loop.soon(lambda: None)
    assert died.wait(SOON)
