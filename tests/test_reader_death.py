"""The reader's thread dies, which nothing should bring about: its tasks end, the next ones run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import support
from support import SOON, a_task, posts, wait_until

from vllm_http import CapacityExceeded, Token, TokenStream, Unknown, VllmHttpAdapter
from vllm_http._reader import Loop, Reader
from vllm_http._run import Run
from vllm_http._slots import Slots
from vllm_http.testing import FakeEngine, Stall, Text


engine = support.engine


def kill(loop: Loop) -> None:
    """Have its next look at the sockets raise."""

    def select(timeout: float | None = None) -> list[object]:
        raise OSError("the selector is broken")

    loop.selector.select = select  # type: ignore[assignment]
    loop.soon(lambda: None)


def loop_of(adapter: VllmHttpAdapter) -> Loop:
    """The one that new tasks begin on."""
    return adapter._reader.start()


def killed(adapter: VllmHttpAdapter) -> None:
    """Kill it, and wait for its end."""
    loop = loop_of(adapter)
    kill(loop)
    assert loop.thread is not None
    loop.thread.join(SOON)


class Mourner:
    """Is told of a death, and begins anew at once."""

    def __init__(self) -> None:
        self.reader = Reader(self.told)
        self.loops: list[Loop] = []
        self.failure: BaseException | None = None

    def told(self, loop: Loop, failure: BaseException) -> None:
        self.loops = [loop, self.reader.start()]
        self.failure = failure


@pytest.fixture
def mourner() -> Iterator[Mourner]:
    """One whose reader runs."""
    mourner = Mourner()
    yield mourner
    mourner.reader.stop(SOON)


def test_next_start_has_another_loop_while_the_old_one_dies(mourner: Mourner) -> None:
    """Not the one whose last messages are being done; it works."""
    rung = threading.Event()
    old = mourner.reader.start()

    kill(old)
    wait_until(lambda: old.over)

    dead, new = mourner.loops
    new.soon(rung.set)
    assert (dead, type(mourner.failure)) == (old, OSError)
    assert new is mourner.reader.start()
    assert rung.wait(SOON)


def test_nothing_is_watched_by_a_loop_that_ends(mourner: Mourner) -> None:
    """It would never be read."""
    old = mourner.reader.start()
    kill(old)
    wait_until(lambda: old.over)

    with pytest.raises(RuntimeError, match="is ending"):
        old.watch(0, None)  # type: ignore[arg-type]


@pytest.fixture
def slow_death(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A loop that dies lets go of nothing before this is set."""
    go_on, unwatch_all = threading.Event(), Loop._unwatch_all

    def wait_and_unwatch(self: Loop) -> None:
        go_on.wait(SOON)
        unwatch_all(self)

    monkeypatch.setattr(Loop, "_unwatch_all", wait_and_unwatch)
    yield go_on
    go_on.set()


def running(engine: FakeEngine, adapter: VllmHttpAdapter, streams: int) -> list[TokenStream]:
    """Streams that have a token each, and no more."""
    for _ in range(streams):
        engine.script(Text("a"), Stall())
    begun = [adapter.submit(a_task()) for _ in range(streams)]
    for stream in begun:
        while not isinstance(stream.get(timeout=SOON), Token):
            pass
    return begun


def test_whoever_is_told_of_the_death_may_submit_at_once(
    engine: FakeEngine, slow_death: threading.Event
) -> None:
    """The new task has a clock and a reader, though the old ones are still being let go."""
    with VllmHttpAdapter(engine.url) as adapter:
        (stream,) = running(engine, adapter, 1)

        kill(loop_of(adapter))
        with pytest.raises(Unknown):
            stream.result(timeout=SOON)

        assert adapter.submit(a_task()).result(timeout=SOON).finish_reason == "length"
        slow_death.set()
        wait_until(lambda: not engine.running)


def test_all_that_ran_or_waited_ends_and_lets_go(engine: FakeEngine) -> None:
    """Streams, those of `map`, and tasks whose turn never came; no connection stays."""
    with VllmHttpAdapter(engine.url, max_concurrency=8) as adapter:
        streams = running(engine, adapter, 8)
        streams += [adapter.submit(a_task()) for _ in range(8)]

        killed(adapter)

        for stream in streams:
            with pytest.raises(Unknown):
                stream.result(timeout=SOON)
        wait_until(lambda: not (engine.running or adapter.running or adapter.waiting))
        results = list(adapter.map(a_task() for _ in range(16)))
        assert [result.error for result in results] == [None] * 16


def test_task_that_is_admitted_behind_the_death_ends(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clocks would never ring: it began on the old loop, and was not live when that died."""
    engine.script(Stall())
    admit = Slots.admit

    def kill_and_admit(self: Slots, run: Run) -> None:
        killed(adapter)
        admit(self, run)

    with VllmHttpAdapter(engine.url) as adapter:
        monkeypatch.setattr(Slots, "admit", kill_and_admit)
        with pytest.raises(Unknown):
            adapter.submit(a_task()).result(timeout=SOON)


def test_selector_is_given_back_where_no_pipe_is_to_be_had(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last descriptors are not kept by a reader that could not start."""

    def pipe() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with VllmHttpAdapter(engine.url) as adapter, monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe)
        with pytest.raises(CapacityExceeded, match="no descriptor"):
            adapter.submit(a_task())
        selector = adapter._reader._loop.selector
        with pytest.raises((ValueError, KeyError, RuntimeError, TypeError)):
            selector.select(0)
        patch.undo()
        assert adapter.submit(a_task()).result(timeout=SOON).error is None
    assert len(posts(engine)) == 1
