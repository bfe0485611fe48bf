"""The second half of a task, read by the one thread that reads all."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import support
from decoding import DONE, text
from support import SOON, a_task, answer, kinds, posts, stopwatch, the_error

from vllm_http import CapacityExceeded, End, Error, Token, Unknown, VllmHttpAdapter, _crew
from vllm_http._decoder import Decoder
from vllm_http._reader import Loop
from vllm_http.testing import Cut, FakeEngine, Normal, Raw, Stall, Text, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


def test_end_does_not_wait_for_the_end_of_the_body(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """[DONE] is the engine's last word; a body that never ends costs its connection, no more."""
    engine.script(Text("a"), Wait(0.02), *answer("b"), Stall())

    with stopwatch() as watch:
        result = adapter.submit(a_task()).result(timeout=SOON)

    assert (result.text, result.finish_reason) == ("ab", "stop")
    assert watch.seconds < SOON / 2
    assert posts(engine)[0].hung_up.wait(SOON)


def test_body_that_ends_late_keeps_its_connection(engine: FakeEngine) -> None:
    """Its end may come a moment after the End was told; then the next task goes the same way."""
    engine.script(Text("a"), Wait(0.02), *answer("b"), Wait(0.05))
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        adapter.engine_version()
        assert adapter.submit(a_task()).result(timeout=SOON).text == "ab"

        # Its turn comes when the first one's connection is free.
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    first, second = posts(engine, 2)
    assert first.connection == second.connection


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_after_done_changes_nothing(
    engine: FakeEngine, adapter: VllmHttpAdapter, how: Literal["fin", "rst"]
) -> None:
    """The answer was whole, whatever became of its connection."""
    engine.script(Text("a"), Wait(0.02), *answer("b"), Cut(how))

    result = adapter.submit(a_task()).result(timeout=SOON)

    assert (result.text, result.error) == ("ab", None)


def test_cancel_after_done_changes_nothing(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Whoever ends a stream whose End was told frees its connection at most."""
    engine.script(Text("a"), Wait(0.02), *answer("b"), Stall())
    stream = adapter.submit(a_task())
    events = list(stream)

    stream.cancel()

    assert isinstance(events[-1], End)
    assert events[-1].finish_reason == "stop"
    assert posts(engine)[0].hung_up.wait(SOON)


def test_bug_of_ours_ends_one_stream_only(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is an `Unknown` error of that stream; the reader reads on."""
    feed = Decoder.feed

    def stumble(self: Decoder, chunk: bytes) -> list[Token]:
        if b"stumble" in chunk:
            raise ZeroDivisionError("nobody foresaw this")
        return feed(self, chunk)

    monkeypatch.setattr(Decoder, "feed", stumble)
    engine.script(Text("a"), Wait(0.02), Text("stumble"), Stall())
    engine.script(Text("a"), Wait(0.1), *answer("b"))

    streams = [adapter.submit(a_task()) for _ in range(2)]
    all_events = [list(stream) for stream in streams]

    assert sorted(kinds(events)[-1] for events in all_events) == ["end", "error"]
    error = the_error(next(events for events in all_events if isinstance(events[-1], Error)))
    assert isinstance(error, Unknown)


def test_socket_that_cannot_be_watched(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system watches no more of them, the stream ends at once, with what had come."""

    def refuse(self: Loop, fileno: int, watched: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Loop, "watch", refuse)
    engine.script(Text("a"), Stall())

    events = list(adapter.submit(a_task()))

    assert kinds(events) == ["started", "token", "error"]
    assert posts(engine)[0].hung_up.wait(SOON)


def test_task_that_gets_no_thread_after_waiting(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with CapacityExceeded, and the next one has its turn."""
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        engine.script(Text("a"), Wait(0.1), *answer("b"))
        first, second, third = (adapter.submit(a_task()) for _ in range(3))
        run = _crew.Crew.run
        refused: list[_crew.Job] = []

        def refuse_once(self: _crew.Crew, job: _crew.Job) -> None:
            if not refused:
                refused.append(job)
                raise CapacityExceeded("no thread to be had")
            run(self, job)

        monkeypatch.setattr(_crew.Crew, "run", refuse_once)
        assert first.result(timeout=SOON).text == "ab"
        assert the_error(list(second)).code == "ADMISSION_REJECT"
        engine.script(Normal())
        assert third.result(timeout=SOON).error is None


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_that_comes_with_done_changes_nothing(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event, how: Literal["fin", "rst"]
) -> None:
    """Also where many streams end so in the same moment."""
    end = Raw(text("b") + text("", "stop") + DONE)
    for _ in range(16):
        engine.script(Text("a"), Wait(gate), end, Wait(0.01), Cut(how))
    streams = [adapter.submit(a_task()) for _ in range(16)]
    for stream in streams:
        assert kinds([next(stream), next(stream)]) == ["started", "token"]

    gate.set()

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda stream: stream.result(timeout=SOON), streams))
    assert {(result.text, result.finish_reason) for result in results} == {("ab", "stop")}


def test_tiny_queues_lose_nobody(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    """A caller may make room while its worker still hands over what it has opened."""
    with VllmHttpAdapter(engine.url, queue_size=1) as adapter, ThreadPoolExecutor(16) as pool:

        def ends(number: int) -> str:
            stream = adapter.submit(a_task(max_tokens=3))
            return [event.type for event in iter(lambda: stream.get(SOON), None) if event][-1]

        assert set(pool.map(ends, range(1500))) == {"end"}

    assert caplog.text == ""
