"""What comes out of a stream: its events, their order, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import support
from support import (
    ONCE,
    SOON,
    a_task,
    answer,
    kinds,
    posts,
    the_error,
)

from vllm_http import (
    End,
    EngineUnavailable,
    InvalidRequest,
    Started,
    StreamingError,
    Token,
    VllmHttpAdapter,
)
from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    ErrorEvent,
    Event,
    FakeEngine,
    Finish,
    Headers,
    Raw,
    Role,
    Status,
    Step,
    Text,
    Usage,
    Wait,
)


engine, adapter = support.engine, support.adapter


def test_events_in_order(adapter: VllmHttpAdapter) -> None:
    """A stream is one Started, the tokens, one End, and nothing more."""
    stream = adapter.submit(a_task(max_tokens=3))

    assert kinds(stream) == ["started", "token", "token", "token", "end"]
    assert list(stream) == []


def test_started_tells_the_job(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Started and End name the X-Request-Id on the wire, and Started the stream's job."""
    stream = adapter.submit(a_task())
    started, *_, end = stream

    (post,) = posts(engine)
    assert isinstance(started, Started)
    assert isinstance(end, End)
    assert started.job_id == stream.job_id
    assert started.request_id == end.request_id == post.header("X-Request-Id")
    assert post.header("X-Correlation-Id") == stream.job_id


def test_started_does_not_wait_for_tokens(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Started comes while the engine still queues the request."""
    gate = threading.Event()
    engine.script(Headers(), Wait(gate), *answer("late"))

    with adapter.submit(a_task()) as stream:
        assert isinstance(stream.get(timeout=SOON), Started)
        gate.set()
        assert kinds(stream) == ["token", "end"]


def test_token_indexes_have_no_gaps(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Each choice counts its own tokens, and events without text count for nothing."""
    engine.script(
        Text("a"), Event({"choices": [{"index": 0, "text": ""}]}), Text("b", choice=1),
        Comment(), Text("c"), Finish("stop"), Finish("length", choice=1), Usage(), Done(),
    )  # fmt: skip

    events = list(adapter.submit(a_task(temperature=1.0, extra_body={"n": 2})))

    tokens = [event for event in events if isinstance(event, Token)]
    assert [(t.choice, t.index, t.text) for t in tokens] == [(0, 0, "a"), (1, 0, "b"), (0, 1, "c")]
    end = events[-1]
    assert isinstance(end, End)
    assert end.finish_reason == "stop"
    assert [(c.index, c.finish_reason) for c in end.choices] == [(0, "stop"), (1, "length")]


def test_last_text_comes_before_the_end(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Text that comes with the finish_reason is a token first."""
    engine.script(Text("a"), Finish("stop", "b", stop_reason="END"), Done())

    _, *tokens, end = adapter.submit(a_task())

    assert [t.text for t in tokens if isinstance(t, Token)] == ["a", "b"]
    assert isinstance(end, End)
    assert (end.finish_reason, end.stop_reason) == ("stop", "END")


def test_token_ids_without_text_are_a_token(adapter: VllmHttpAdapter, engine: FakeEngine) -> None:
    """An event without text is a Token where it carries token ids."""
    engine.script(Event({"choices": [{"index": 0, "text": "", "token_ids": [7]}]}), *answer("é"))

    _, first, second, *_ = adapter.submit(a_task())

    assert first == Token("", 0, token_ids=[7])
    assert isinstance(second, Token)
    assert (second.text, second.index) == ("é", 1)


def test_chat_begins_with_its_first_text(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The role event of a chat makes no token."""
    engine.script(Role(), *answer("Hi"))
    task = a_task(prompt=None, messages=[{"role": "user", "content": "Hi"}])

    assert kinds(adapter.submit(task)) == ["started", "token", "end"]


def test_end_has_the_engines_counts(adapter: VllmHttpAdapter) -> None:
    """The metrics of a normal end are the engine's usage, with all times known."""
    *_, end = adapter.submit(a_task(prompt="one two three", max_tokens=4))

    assert isinstance(end, End)
    metrics = end.metrics
    assert (metrics.tokens_generated, metrics.tokens_in, metrics.attempts) == (4, 3, 1)
    assert metrics.usage_source == "engine"
    assert metrics.latency_first_token_ms is not None
    assert metrics.decode_time_ms is not None
    assert metrics.total_time_ms is not None
    assert 0 <= metrics.latency_first_token_ms + metrics.decode_time_ms <= metrics.total_time_ms


def test_refused_by_status_is_an_error_alone(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A task that the engine refuses never started."""
    engine.script(Status(400, {"error": {"message": "No way", "code": 400}}))

    events = list(adapter.submit(a_task()))

    assert kinds(events) == ["error"]
    assert isinstance(the_error(events), InvalidRequest)
    assert "No way" in the_error(events).message


def test_refused_inside_the_stream(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """An error event before any token has the class of its code, after a Started."""
    engine.script(Headers(), ErrorEvent("Bad regex", 400, "BadRequestError"), Done())

    events = list(adapter.submit(a_task()))

    assert kinds(events) == ["started", "error"]
    assert isinstance(the_error(events), InvalidRequest)
    assert the_error(events).status == 400


def test_tokens_come_out_before_the_error(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What arrived before the engine died is not lost."""
    engine.script(Text("a"), Text("b"), ErrorEvent("EngineCore died"), Done())

    events = list(adapter.submit(a_task()))

    assert kinds(events) == ["started", "token", "token", "error"]
    assert isinstance(the_error(events), EngineUnavailable)
    assert the_error(events).status == 500


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param([Done()], id="no finish_reason"),
        pytest.param([Finish("stop")], id="no [DONE]"),
        pytest.param([Cut("fin")], id="no zero chunk"),
        pytest.param([Cut("rst")], id="reset"),
        pytest.param([Finish("abort"), Done()], id="abort"),
        pytest.param([], id="nothing"),
    ],
)
def test_dishonest_ends(
    engine: FakeEngine, adapter: VllmHttpAdapter, ending: Sequence[Step]
) -> None:
    """A stream that breaks after its first token is an error that may be tried again."""
    engine.script(Text("a"), *ending)

    events = list(adapter.submit(a_task()))

    assert kinds(events) == ["started", "token", "error"]
    assert isinstance(the_error(events), StreamingError)
    assert the_error(events).retriable


def test_one_unfinished_choice_is_an_error(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Every choice needs its own finish_reason."""
    engine.script(Text("a"), Text("b", choice=1), Finish("stop"), Usage(), Done())

    events = adapter.submit(a_task(temperature=1.0, extra_body={"n": 2}))

    assert isinstance(the_error(events), StreamingError)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Status(200, b"<html>Welcome</html>")], id="HTML"),
        pytest.param([Status(200, {"choices": []})], id="JSON"),
        pytest.param([Event("no json"), Done()], id="broken JSON"),
        pytest.param([Raw(b"data: \xff\xfe\n\n")], id="bad UTF-8"),
    ],
)
def test_garbage_is_an_error(engine: FakeEngine, steps: Sequence[Step]) -> None:
    """A 200 that is no event stream is an error, and sending it again has no hope."""
    engine.script(*steps)

    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        error = the_error(adapter.submit(a_task()))

    assert isinstance(error, StreamingError)
    assert not error.retriable


def test_too_large_an_event_is_an_error(engine: FakeEngine) -> None:
    """An event beyond max_event_bytes ends the stream with an error that is not retriable."""
    engine.script(Text("a"), Text("b" * 20_000), *answer())

    with VllmHttpAdapter(engine.url, max_event_bytes=10_000) as adapter:
        events = list(adapter.submit(a_task()))

    assert kinds(events) == ["started", "token", "error"]
    assert isinstance(the_error(events), StreamingError)
    assert not the_error(events).retriable


def test_rubbish_after_done_is_no_error(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What follows [DONE] cannot spoil the end."""
    engine.script(*answer("a"), Raw(b'data: {"cho'))

    assert kinds(adapter.submit(a_task())) == ["started", "token", "end"]
