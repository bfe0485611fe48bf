"""A stream that no `End` closed: `result` and `text` raise, and never take half for the whole."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
import support
from forking import forks, in_a_child
from support import SOON, Signal, a_task, answer, kinds, the_partial, wait_until

from vllm_http import AdapterClosed, TokenStream, VllmHttpAdapter, WorkerError
from vllm_http.testing import FakeEngine, Stall, Text, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


ENDS: dict[str, Callable[[TokenStream], object]] = {
    "result": lambda stream: stream.result(),
    "text": lambda stream: list(stream.text()),
}


@pytest.mark.parametrize("way", ENDS)
def test_closed_before_its_end(engine: FakeEngine, adapter: VllmHttpAdapter, way: str) -> None:
    """Its owner learns that there is no answer, though all of it waited to be taken."""
    engine.script(*answer("a", "b"))
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    wait_until(lambda: stream.done)

    stream.close()

    with pytest.raises(AdapterClosed, match="closed before its end") as caught:
        ENDS[way](stream)
    assert (caught.value.job_id, caught.value.retriable) == (stream.job_id, False)
    assert list(stream) == []


def test_closed_before_its_end_says_what_was_taken(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """The error's partial is what the caller had seen, no more."""
    engine.script(Text("a"), Text("b"), Stall())
    stream = adapter.submit(a_task())
    wait_until(lambda: stream.receiver.qsize() == 3)
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    stream.close()

    for _ in range(2):
        with pytest.raises(AdapterClosed) as caught:
            stream.result()
        assert the_partial(caught.value) == "a"


@pytest.mark.parametrize("way", ENDS)
def test_closed_by_another_thread(engine: FakeEngine, adapter: VllmHttpAdapter, way: str) -> None:
    """Who waits for the answer meanwhile doesn't take half of it for the whole."""
    reached = threading.Event()
    engine.script(Text("a"), Signal(reached), Stall())
    stream = adapter.submit(a_task())
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()

    def wait() -> None:
        try:
            seen.put(ENDS[way](stream))
        except WorkerError as error:
            seen.put(error)

    caller = threading.Thread(target=wait)
    caller.start()
    assert reached.wait(SOON)
    wait_until(lambda: len(stream.receiver.kept) == 2 and not stream.receiver.qsize())
    stream.close()
    caller.join(SOON)

    assert isinstance(seen.get_nowait(), AdapterClosed)


@pytest.mark.parametrize("first", ["nothing", "cancel", "close", "drain"])
@forks
def test_parents_answer_is_none_in_the_child(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event, first: str
) -> None:
    """In a forked child result() and text() raise, whatever was done to the stream before."""
    engine.script(Text("a"), Text("b"), Wait(gate), *answer("c"))
    stream = adapter.submit(a_task())
    wait_until(lambda: stream.receiver.qsize() == 3)
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    begin: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "cancel": stream.cancel,
        "close": stream.close,
        "drain": lambda: list(stream),
    }

    def ask() -> list[Any]:
        begin[first]()
        errors = []
        for way in ENDS.values():
            with pytest.raises(WorkerError) as caught:
                way(stream)
            errors.append(caught.value)
        return [type(error).__name__ for error in errors] + [the_partial(errors[0])]

    assert in_a_child(ask) == ["AdapterClosed", "AdapterClosed", "a"]
    gate.set()
    assert stream.result(timeout=SOON).text == "abc"


@forks
def test_parents_cancel_in_the_child_keeps_the_error(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """A child's cancel() drops no last event: the stream still says why it is over."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    def cancel() -> list[str]:
        stream.cancel()
        return kinds(stream)

    assert in_a_child(cancel) == ["error"]
    gate.set()
    assert stream.result(timeout=SOON).text == "ab"


@forks
def test_answer_that_was_whole_before_the_fork(adapter: VllmHttpAdapter) -> None:
    """What the parent had taken to its end, the child has too."""
    stream = adapter.submit(a_task())
    text = "".join(stream.text())

    seen = in_a_child(lambda: [stream.result().text, kinds(stream), stream.receiver.qsize()])

    assert seen == [text, [], 0]
