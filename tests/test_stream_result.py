"""`TokenStream.result`: the whole answer, however it was taken, and only what an `End` closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import support
from support import (
    SOON,
    a_task,
    answer,
    kinds,
    stopwatch,
    the_error,
    the_partial,
    wait_until,
)

from vllm_http import (
    End,
    InvalidRequest,
    StreamingError,
    TaskRequest,
    Token,
    TokenStream,
    VllmHttpAdapter,
)
from vllm_http.testing import Cut, Done, FakeEngine, Finish, Stall, Status, Text, Usage, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


def take_by_get(stream: TokenStream) -> None:
    """To the end, by `get`."""
    while stream.get(timeout=SOON) is not None:
        pass


def take_from_receiver(stream: TokenStream) -> None:
    """To the end, out of the queue behind the stream."""
    while not isinstance(stream.receiver.get(timeout=SOON), End):
        pass


WAYS: dict[str, Callable[[TokenStream], object]] = {
    "nothing": lambda stream: None,
    "next": lambda stream: [next(stream), next(stream)],
    "iteration": list,
    "text": lambda stream: list(stream.text()),
    "get": take_by_get,
    "receiver": take_from_receiver,
    "receiver, one": lambda stream: [stream.receiver.get(timeout=SOON) for _ in range(2)],
}


@pytest.mark.parametrize("taken", WAYS)
def test_result_is_whole_whatever_was_taken(
    engine: FakeEngine, adapter: VllmHttpAdapter, taken: str
) -> None:
    """By whichever way events were taken before, and however many of them."""
    engine.script(*answer("a", "b", "c"))
    with adapter.submit(a_task()) as stream:
        WAYS[taken](stream)
        completion = stream.result(timeout=SOON)

    assert (completion.text, completion.finish_reason) == ("abc", "stop")
    assert completion.metrics is not None
    assert completion.metrics.tokens_generated == 3
    assert stream.result() == completion


def test_chat_keeps_its_history(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What was shown piece by piece goes back to the engine as the assistant's message."""
    engine.script(*answer("Hel", "lo"))
    task = TaskRequest(messages=[{"role": "user", "content": "Hi"}], model="fake-model")
    with adapter.submit(task) as stream:
        shown = "".join(stream.text())

    assert shown == "Hello"
    assert stream.result().message() == {"role": "assistant", "content": "Hello"}


def test_result_is_the_whole(adapter: VllmHttpAdapter, engine: FakeEngine) -> None:
    """result() is everything that the stream held, and says the same when asked again."""
    engine.script(*answer("a", "b"))
    stream = adapter.submit(a_task())

    completion = stream.result(timeout=SOON)

    assert completion.job_id == stream.job_id
    assert (completion.text, completion.finish_reason, completion.error) == ("ab", "stop", None)
    assert completion.metrics is not None
    assert completion.metrics.tokens_generated == 2
    assert stream.result().text == "ab"


def test_result_has_all_choices(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """With several choices, each has its own text and end in the completion."""
    engine.script(
        Text("a"), Text("x", choice=1), Finish("stop", choice=1), Finish("length"), Usage(), Done()
    )

    completion = adapter.submit(a_task(temperature=1.0, extra_body={"n": 2})).result()

    choices = [(c.index, c.text, c.finish_reason) for c in completion.choices]
    assert choices == [(0, "a", "length"), (1, "x", "stop")]
    assert (completion.text, completion.finish_reason) == ("a", "length")


def test_result_goes_on_after_its_timeout(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """A result() that ran out of patience harms nothing, and the next one returns the whole."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task())

    with stopwatch() as watch, pytest.raises(TimeoutError):
        stream.result(timeout=0.2)
    gate.set()

    assert 0.2 <= watch.seconds < SOON
    assert stream.result(timeout=SOON).text == "ab"


def test_result_after_the_error_was_iterated(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A failed stream's result() is never a good one."""
    engine.script(Text("a"), Cut("rst"))
    stream = adapter.submit(a_task())
    assert kinds(stream) == ["started", "token", "error"]

    with pytest.raises(StreamingError) as caught:
        stream.result()

    assert the_partial(caught.value) == "a"


def test_result_raises_with_what_there_was(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The error that result() raises carries what had come and the job."""
    engine.script(Text("a"), Text("b"), Cut("fin"))
    stream = adapter.submit(a_task())

    with pytest.raises(StreamingError) as caught:
        stream.result()

    assert caught.value.job_id == stream.job_id
    assert caught.value.partial is not None
    assert caught.value.partial.text == "ab"


def test_error_event_has_no_partial(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Who iterates has the events, so the error repeats nothing."""
    engine.script(Text("a"), Cut("fin"))

    assert the_error(adapter.submit(a_task())).partial is None


def test_result_of_a_refused_task(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A task that never started raises its refusal."""
    engine.script(Status(404, {"error": {"message": "no such model", "code": 404}}))

    with pytest.raises(InvalidRequest, match="no such model"):
        adapter.submit(a_task()).result()


def test_result_after_an_interrupted_caller(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that an interrupt took from its taker is still in the result."""
    engine.script(*answer("a", "b"))
    stream = adapter.submit(a_task())
    wait_until(lambda: stream.done)
    waiting = stream.receiver.queue

    class Interrupted(type(waiting)):  # type: ignore[misc]
        def popleft(self) -> Any:
            super().popleft()
            raise KeyboardInterrupt

    assert kinds([next(stream)]) == ["started"]
    monkeypatch.setattr(stream.receiver, "queue", Interrupted(waiting))
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    monkeypatch.setattr(stream.receiver, "queue", type(waiting)(list(stream.receiver.queue)))

    assert [event.text for event in stream if isinstance(event, Token)] == ["b"]
    assert stream.result().text == "ab"


def test_result_of_a_cancelled_stream(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """It has what was taken before the cancel; what still waited was dropped."""
    engine.script(Text("a"), Text("b"), Stall())
    stream = adapter.submit(a_task())
    wait_until(lambda: stream.receiver.qsize() == 3)
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    stream.cancel()

    completion = stream.result()
    assert (completion.text, completion.finish_reason) == ("a", "cancelled")
