"""The decoder's promises: honest ends, what content is, and errors inside a 200."""

from __future__ import annotations

import pytest
from decoding import DONE, decoder, delta, ended, event, text, texts, verdict

from vllm_http import (
    EngineUnavailable,
    InvalidRequest,
    Logprob,
    StreamingError,
    Token,
    ToolCallDelta,
    WorkerError,
)


# How a stream ends.


def test_a_finish_reason_and_done_make_an_honest_end() -> None:
    """Both are needed, and both are enough."""
    stream = decoder()

    assert texts(stream.feed(text("a"))) == ["a"]
    assert (stream.over, stream.done) == (False, False)
    assert texts(stream.feed(text("b", "stop", stop_reason="\n") + DONE)) == ["b"]
    assert (stream.over, stream.done) == (True, True)
    assert verdict(stream) is None


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "stream was cut: it ended without [DONE]"),
        ([text("a")], "stream was cut: it ended without [DONE]"),
        ([text("a", "stop")], "stream was cut: it ended without [DONE]"),
        ([text("a", "stop"), b"data: [DO"], "it ended without [DONE], 9 bytes into an event"),
        ([text("a", "stop"), DONE[:-3]], "it ended without [DONE], 11 bytes into an event"),
        ([DONE], "answer is incomplete: 1 of 1 choices had no finish_reason"),
        ([text("a"), DONE], "answer is incomplete: 1 of 1 choices had no finish_reason"),
        ([event(choices=[], usage={}), DONE], "1 of 1 choices had no finish_reason"),
        ([b": keep-alive\n\n", DONE], "1 of 1 choices had no finish_reason"),
        ([text("a", "abort"), DONE], "engine aborted the request"),
        ([text("a", "abort")], "engine aborted the request"),
    ],
)
def test_a_stream_that_is_not_whole_is_an_error(events: list[bytes], message: str) -> None:
    """Whatever is missing at the end, the verdict says so, and that trying again may help."""
    error = ended(*events)

    assert isinstance(error, StreamingError)
    assert message in error.message
    assert (error.retriable, error.code) == (True, "WORKER_RESET")


def test_each_choice_needs_an_end() -> None:
    """A choice that the request asked for and that never came is missing."""
    error = ended(text("a", "stop", 0), DONE, choices=2)

    assert isinstance(error, StreamingError)
    assert "1 of 2 choices had no finish_reason" in error.message
    assert ended(text("a", "stop", 1), text("b", "stop", 0), DONE, choices=2) is None


@pytest.mark.parametrize(("index", "choices"), [(1, 1), (5, 2), (-1, 2), (2**70, 3)])
def test_a_choice_that_nobody_asked_for_is_an_error(index: int, choices: int) -> None:
    """The engine mistakes this answer for another; the message says what came and what was due."""
    error = ended(text("a", "stop", 0), text("b", "stop", index), DONE, choices=choices)

    assert isinstance(error, StreamingError)
    assert f"choice {index} came, and the task asked for {choices}" in error.message
    assert error.retriable is False


def test_one_aborted_choice_spoils_the_stream() -> None:
    """An abort is not hidden by a choice that ended well."""
    error = ended(text("a", "stop", 0), text("b", "abort", 1), DONE, choices=2)

    assert error is not None
    assert "abort" in error.message


def test_nothing_counts_after_done() -> None:
    """What a gateway adds after [DONE] is ignored, be it an event, an error, or half of one."""
    stream = decoder()
    stream.feed(text("a", "stop") + DONE + text("b") + event(error={"code": 500}))

    assert stream.feed(text("c") + b"data: \xff\n\n" + b"data: {") == []
    assert verdict(stream) is None
    assert stream.tokens_generated == 1


# What is content.


@pytest.mark.parametrize(
    "content",
    [
        text("a"),
        text("", token_ids=[1]),
        text("", logprobs={"tokens": [""]}),
        delta(content="a"),
        delta(reasoning="hm"),
        delta(reasoning_content="hm"),
        delta(content=None, tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
    ],
)
def test_content_begins_the_answer(content: bytes) -> None:
    """Text, token ids, reasoning and tool calls are content: nothing is retried after them."""
    stream = decoder()

    stream.feed(content)

    assert (stream.content, stream.begun) == (1, True)


@pytest.mark.parametrize(
    "nothing",
    [
        b": keep-alive\n\n",
        delta(role="assistant", content=""),
        text(""),
        text("", token_ids=[], logprobs={}),
        delta(tool_calls=[], reasoning=""),
        event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 0}),
        text("", "abort"),
        event(error={"message": "no", "code": 503}),
    ],
)
def test_what_is_no_content_does_not_begin_the_answer(nothing: bytes) -> None:
    """Comments, roles, empty texts, usage, an abort and an error are no content."""
    stream = decoder()

    assert stream.feed(nothing) == []
    assert (stream.content, stream.begun) == (0, False)


def test_an_empty_answer_is_an_answer() -> None:
    """A model may say nothing at all; its finish_reason tells that it meant to."""
    stream = decoder()

    assert stream.feed(text("", "stop") + DONE) == []
    assert (stream.content, stream.begun) == (0, True)
    assert verdict(stream) is None


def test_reasoning_and_tool_calls_are_tokens_without_text() -> None:
    """Numbered like any other; what comes in one event is one token."""
    call = {"index": 0, "function": {"arguments": "{}"}}
    piece = ToolCallDelta(0, arguments="{}")
    stream = decoder()

    assert stream.feed(delta(reasoning="hm") + delta(tool_calls=[call])) == [
        Token("", 0, reasoning="hm"),
        Token("", 1, tool_calls=[piece]),
    ]
    assert stream.feed(delta(content="a", reasoning_content="b", tool_calls=[call])) == [
        Token("a", 2, reasoning="b", tool_calls=[piece])
    ]


def test_text_of_the_last_event_is_a_token_too() -> None:
    """The finish_reason rides on the last piece of text."""
    assert texts(decoder().feed(text("the end", "length"))) == ["the end"]


def test_tokens_without_text_are_tokens() -> None:
    """Ids and logprobs are handed on, and numbered like any other token."""
    tokens = decoder().feed(text("", token_ids=[7, 8]) + text("a", logprobs={"tokens": ["a"]}))

    assert tokens == [
        Token("", 0, 0, [7, 8], None),
        Token("a", 1, 0, None, [Logprob("a")]),
    ]


def test_tokens_are_counted_by_usage_then_ids_then_pieces() -> None:
    """The best count that has come is the one that is told."""
    stream = decoder(choices=2)

    stream.feed(text("a") + text("b"))
    assert stream.tokens_generated == 2
    stream.feed(text("c", index=1, token_ids=[1, 2, 3]))
    assert stream.tokens_generated == 5
    stream.feed(event(choices=[], usage={"prompt_tokens": 1}))
    assert stream.tokens_generated == 5
    stream.feed(event(choices=[], usage={"completion_tokens": 0}))
    assert stream.tokens_generated == 0


# Errors inside a 200.


@pytest.mark.parametrize(
    ("error", "kind", "status", "message"),
    [
        (event(error={"message": "no", "code": 400}), InvalidRequest, 400, "no"),
        (event(error={"message": "dead", "code": 500}), EngineUnavailable, 500, "dead"),
        (event(error={"message": "dead", "code": "x"}), EngineUnavailable, None, "dead"),
        (event(error={"message": "dead"}), EngineUnavailable, None, "dead"),
        (event(error={"code": 404}), InvalidRequest, 404, '{"code": 404}'),
        (event(error="dead"), EngineUnavailable, None, "dead"),
        (event(error=["dead"]), EngineUnavailable, None, '["dead"]'),
        (event(object="error", message="no", code=400), InvalidRequest, 400, "no"),
        (event(object="error", message="dead", code=None), EngineUnavailable, None, "dead"),
        (event(choices=[], error={"message": "no", "code": 400}), InvalidRequest, 400, "no"),
    ],
)
def test_an_error_is_what_its_code_says(
    error: bytes, kind: type[WorkerError], status: int | None, message: str
) -> None:
    """Every form of error that vLLM has had gives the error that its status would have given."""
    actual = ended(error, DONE)

    assert type(actual) is kind
    assert actual.status == status
    assert actual.message.endswith(f": {message}")


def test_an_error_keeps_the_tokens_before_it() -> None:
    """Tokens that came in the same bytes as the error are given; nothing after it is."""
    stream = decoder()

    assert texts(stream.feed(text("a") + event(error={"code": 500}) + text("b"))) == ["a"]
    assert stream.over
    assert stream.feed(text("c", "stop") + DONE) == []
    assert isinstance(verdict(stream), EngineUnavailable)


def test_text_that_comes_with_an_error_is_told_before_it() -> None:
    """It is in the same event; the error's class is as if it had not been."""
    stream = decoder()

    beside = event(choices=[{"text": "a"}], error={"message": "no", "code": 400})
    assert texts(stream.feed(beside + text("b"))) == ["a"]
    assert type(verdict(stream)) is InvalidRequest


def test_an_error_beside_what_is_no_choice_is_the_error() -> None:
    """It says more than the garbage next to it."""
    error = ended(event(choices=[{"text": 5}], error={"message": "no", "code": 400}))

    assert type(error) is InvalidRequest


def test_an_error_holds_no_secret() -> None:
    """The engine's own text is redacted."""
    error = ended(event(error={"message": "key hunter2 is unknown", "code": 401}))

    assert error is not None
    assert error.code == "UPSTREAM_AUTH"
    assert "hunter2" not in error.message
