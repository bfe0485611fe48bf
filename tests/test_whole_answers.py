"""What vLLM does not stream is a task like any other: its answer comes in one piece."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import support
from support import LIMIT, ONCE, QUICKLY, SOON, a_task, kinds, posts, stopwatch, the_error

from vllm_http import End, InvalidRequest, StreamingError, Timeout, Timeouts, VllmHttpAdapter
from vllm_http.testing import Cut, FakeEngine, Stall, Status, WireBytes


engine, adapter, gate = support.engine, support.adapter, support.gate

WHOLE: list[dict[str, Any]] = [{"use_beam_search": True}, {"prompt_logprobs": 1}]


@pytest.mark.parametrize("fields", WHOLE, ids=lambda fields: next(iter(fields)))
def test_answer_in_one_piece(
    engine: FakeEngine, adapter: VllmHttpAdapter, fields: dict[str, Any]
) -> None:
    """The usual events in the usual order, with one token for each choice."""
    stream = adapter.submit(a_task(n=2, **fields))
    events = list(stream)

    assert kinds(events) == ["started", "token", "token", "end"]
    end = events[-1]
    assert isinstance(end, End)
    assert [choice.finish_reason for choice in end.choices] == ["length", "length"]
    assert end.metrics.usage_source == "engine"
    (post,) = posts(engine)
    assert post.json["stream"] is False
    assert ("accept", "application/json") in [(k.lower(), v) for k, v in post.headers]


def test_two_in_turn_share_a_connection(engine: FakeEngine) -> None:
    """A whole answer leaves its connection as free as a stream does."""
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        adapter.engine_version()
        for task in (a_task(use_beam_search=True), a_task(), a_task(prompt_logprobs=0)):
            assert adapter.submit(task).result(timeout=SOON).error is None

    assert len({post.connection for post in posts(engine, 3)}) == 1


def test_a_cut_answer_is_tried_again(engine: FakeEngine) -> None:
    """Nothing of it was told."""
    engine.script(WireBytes(head(1000) + b'{"choices": ['), Cut("fin"))
    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        result = adapter.submit(a_task(use_beam_search=True)).result(timeout=SOON)

    assert result.metrics is not None
    assert (result.error, result.metrics.attempts) == (None, 2)


def test_a_cut_answer_is_an_error_in_the_end(engine: FakeEngine) -> None:
    """Never a shorter answer."""
    engine.script(WireBytes(head(1000) + b'{"choices": ['), Cut("fin"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        error = the_error(adapter.submit(a_task(use_beam_search=True)))

    assert isinstance(error, StreamingError)
    assert error.retriable


@pytest.mark.parametrize("sent", ["nothing", "some"])
def test_answer_that_does_not_come(engine: FakeEngine, sent: str) -> None:
    """The first-token clock runs for all of it: nothing is known before its end."""
    engine.script(*([WireBytes(head(1000) + b"{")] if sent == "some" else []), Stall())
    clocks = Timeouts(first_token=LIMIT)
    with VllmHttpAdapter(engine.url, timeouts=clocks) as adapter, stopwatch() as watch:
        error = the_error(adapter.submit(a_task(use_beam_search=True)))

    assert isinstance(error, Timeout)
    assert error.phase == "first_token"
    assert watch.seconds < SOON
    engine.wait_idle()


def test_cancel_while_it_is_awaited(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The engine is freed at once."""
    engine.script(WireBytes(head(1000) + b"{"), Stall())
    stream = adapter.submit(a_task(use_beam_search=True))
    (post,) = posts(engine)
    caller = threading.Thread(target=stream.result)
    caller.start()

    stream.cancel()

    caller.join(SOON)
    assert not caller.is_alive()
    assert post.hung_up.wait(SOON)
    assert stream.result().finish_reason == "cancelled"


def test_stream_instead_of_a_whole_answer(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """It is not taken for one."""
    engine.script(Status(200, b"data: {}", {"content-type": "text/event-stream"}))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        error = the_error(adapter.submit(a_task(use_beam_search=True)))

    assert isinstance(error, StreamingError)
    assert "text/event-stream, not application/json" in error.message


def test_refused(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """By status, as with any other task."""
    error = the_error(adapter.submit(a_task(use_beam_search=True, model="unknown")))

    assert isinstance(error, InvalidRequest)
    assert error.status == 404


def test_answer_larger_than_an_event_may_be(engine: FakeEngine) -> None:
    """The limit of an event is that of a document."""
    with VllmHttpAdapter(engine.url, max_event_bytes=100) as adapter:
        error = the_error(adapter.submit(a_task(use_beam_search=True, max_tokens=100)))

    assert isinstance(error, StreamingError)
    assert "more than 100 bytes" in error.message
    assert not error.retriable


def head(length: int) -> bytes:
    """The head of an answer whose body should have that length."""
    lines = ["HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()
