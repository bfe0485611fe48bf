"""Events of a stream as other servers write them: their types, their last line, their errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from decoding import DONE, decoder, delta, ended, event, text, texts, verdict
from hypothesis import given
from hypothesis import strategies as st
from wire import cuts, halves, single_bytes

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    WorkerError,
)
from vllm_http._redact import Redactor
from vllm_http._refusal import refusal_of_answer


WHOLE = text("a") + text("", "stop")


# The last line.


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize(
    "last",
    [
        b"data: [DONE]",
        b"data:[DONE]",
        b"data: [DONE] ",
        b": bye\ndata: [DONE]",
        b"id: 1\ndata:[DONE]",
    ],
)
def test_done_needs_no_blank_line_at_the_end_of_the_body(
    last: bytes, blank: int, line_end: bytes
) -> None:
    """It is whole with its last bracket, however many line ends follow, and however it is cut."""
    stream = WHOLE + last + blank * b"\n"
    stream = stream.replace(b"\n", line_end)

    for pieces in ([stream], single_bytes(stream), *halves(stream)):
        parts = decoder()
        assert [word for piece in pieces for word in texts(parts.feed(piece))] == ["a"]
        assert verdict(parts) is None
        assert parts.done


@pytest.mark.parametrize("cut", range(1, len(b"data: [DONE]")))
def test_a_part_of_done_is_a_cut_stream(cut: int) -> None:
    """Its last bracket is missing."""
    error = ended(WHOLE, b"data: [DONE]"[:cut])

    assert isinstance(error, StreamingError)
    assert "it ended without [DONE]" in error.message


def test_a_last_event_without_its_blank_line_is_not_the_end() -> None:
    """A finish_reason alone may be a cut between two choices, or before the usage."""
    error = ended(text("a"), text("b", "stop").rstrip(b"\n"))

    assert isinstance(error, StreamingError)
    assert "stream was cut" in error.message


# Types of events.


@pytest.mark.parametrize(
    "other",
    [
        b"event: ping\ndata: 2024-01-01T00:00:00Z\n\n",
        b"event: ping\ndata\n\n",
        b"event: ping\n\n",
        b"event:heartbeat\ndata: {}\n\n",
        b"data: <html>\nevent: status\n\n",
        b'event: ping\ndata: {"choices": [{"index": 0, "text": "no"}]}\n\n',
    ],
)
def test_events_of_other_types_are_not_chunks(other: bytes) -> None:
    """Wherever they stand, and whatever is in them."""
    stream = decoder()

    assert texts(stream.feed(other + text("a") + other + text("b", "stop") + other + DONE)) == [
        "a",
        "b",
    ]
    assert verdict(stream) is None


@pytest.mark.parametrize("head", [b"event: message\n", b"event:\n", b"event\n", b"id: 5\n"])
def test_messages_are_chunks(head: bytes) -> None:
    """With their type's name, or an empty one."""
    stream = decoder()

    assert texts(stream.feed(head + text("a", "stop") + head + DONE)) == ["a"]
    assert verdict(stream) is None


def test_done_may_have_a_type_of_its_own() -> None:
    """Nothing else looks like it."""
    assert ended(WHOLE, b"event: done\ndata: [DONE]\n\n") is None


ERRORS: list[tuple[str, type[WorkerError], int | None, str]] = [
    ("Internal trouble, try later", EngineUnavailable, None, "Internal trouble, try later"),
    ("key hunter2 is wrong", EngineUnavailable, None, "key ****f52fbd is wrong"),
    ('"in quotes"', EngineUnavailable, None, "in quotes"),
    ('{"error": {"message": "no", "code": 400}}', InvalidRequest, 400, "no"),
    ('{"message": "no", "code": "429"}', CapacityExceeded, 429, "no"),
    (
        '{"type": "error", "error": {"message": "full", "code": 503}}',
        EngineUnavailable,
        503,
        "full",
    ),
    ('{"error": "dead"}', EngineUnavailable, None, "dead"),
    ('{"detail": "no route"}', EngineUnavailable, None, "no route"),
    ('{"message": "half \\ud83d"}', EngineUnavailable, None, "half \ufffd"),
    ("[DONE]", EngineUnavailable, None, "[DONE]"),
]


@pytest.mark.parametrize(("data", "kind", "status", "words"), ERRORS)
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_an_event_of_type_error_is_the_error(
    data: str, kind: type[WorkerError], status: int | None, words: str, end: bytes
) -> None:
    """Its data, JSON or plain words, are the message; nothing after it counts."""
    more = [WHOLE, DONE] if end == b"\n\n" else []
    for name in (b"error", b"Error"):
        error = ended(b"event: " + name + b"\ndata: " + data.encode() + end, *more)

        assert type(error) is kind
        assert error.status == status
        assert error.message.endswith(f": {words}")


@given(st.data())
def test_events_with_types_are_the_same_however_they_are_cut(data: st.DataObject) -> None:
    """Tokens, and the error after them."""
    events = [
        b"event: ping\ndata: now\n\n",
        text("a"),
        b": keep-alive\n\n",
        b"event: message\n" + text("b"),
        text("c"),
    ]
    order = data.draw(st.permutations(events))
    words = [word for one in order for word in texts(decoder().feed(one))]
    whole = b"".join(order) + b"event: error\ndata: gone\ndata: home\n\n" + text("d")
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    stream = decoder()

    pieces = data.draw(cuts(whole.replace(b"\n", line_end)))

    assert [word for piece in pieces for word in texts(stream.feed(piece))] == words
    error = verdict(stream)
    assert error is not None
    assert error.message == "engine sent an error: gone home"


# Whose fault an error is.


@pytest.mark.parametrize(
    "code",
    [
        {"code": "400"},
        {"code": 400.0},
        {"code": " 400 "},
        {"code": "context_too_long", "status": 400},
        {"code": None, "status_code": "400"},
    ],
    ids=str,
)
def test_a_number_as_text_is_the_number(code: dict[str, Any]) -> None:
    """The class follows from it as from a status."""
    error = ended(event(error={"message": "no", **code}), DONE)

    assert type(error) is InvalidRequest
    assert (error.status, error.retriable) == (400, False)


DEAD = [
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "Engine loop is not running. Inspect the stacktrace to find the original error: x",
    "Background loop has errored already.",
]


@pytest.mark.parametrize("words", DEAD)
def test_a_dead_engine_is_not_the_callers_fault(words: str) -> None:
    """vLLM up to 0.12 says 400 inside a stream when its engine was killed."""
    error = ended(event(error={"message": words, "type": "BadRequestError", "code": 400}), DONE)

    assert type(error) is EngineUnavailable
    assert (error.status, error.retriable) == (400, True)
    assert words in error.message


@pytest.mark.parametrize("begin", [text("a"), delta(reasoning="a"), text("", "stop")])
@pytest.mark.parametrize("code", [400, 401, 404, 422, "400"])
def test_a_refusal_after_content_is_not_the_callers_fault(begin: bytes, code: Any) -> None:
    """A request that was answered was good."""
    error = ended(begin, event(error={"message": "something", "code": code}), DONE)

    assert type(error) is EngineUnavailable
    assert (error.status, error.retriable) == (int(code), True)


@pytest.mark.parametrize("begin", [b"", delta(role="assistant", content="")])
def test_a_refusal_before_content_is_the_callers(begin: bytes) -> None:
    """Also one that quotes such words of a prompt."""
    error = ended(begin, event(error={"message": f"bad regex: {DEAD[0]}", "code": 400}), DONE)

    assert type(error) is InvalidRequest


def test_half_a_surrogate_pair_in_a_refusal_by_status() -> None:
    """Its message can be printed, as that of one inside a stream."""
    body = b'{"error": {"message": "no \\ud83d", "code": 400}}'

    assert refusal_of_answer(400, {}, body, Redactor()).message == "engine answered 400: no \ufffd"


def test_too_much_at_once_stays_what_it_is() -> None:
    """After content, too."""
    error = ended(text("a"), event(error={"message": "slow down", "code": 429}))

    assert type(error) is CapacityExceeded


# What is no stream at all.


@pytest.mark.parametrize("indent", [None, 2])
def test_json_for_a_stream_is_named(indent: int | None) -> None:
    """A gateway that does not stream; nothing of the answer is quoted."""
    whole = {"choices": [{"message": {"content": "secret"}, "finish_reason": "stop"}]}
    error = ended(json.dumps(whole, indent=indent).encode())

    assert isinstance(error, StreamingError)
    assert "one JSON document instead of a stream of events" in error.message
    assert "secret" not in error.message
    assert error.retriable is False


def test_json_error_for_a_stream_is_the_error() -> None:
    """As before: what it says is more than what it is not."""
    error = ended(b'{"error": {"message": "no", "code": "404"}}')

    assert type(error) is InvalidRequest
    assert error.code == "UPSTREAM_NOT_FOUND"


# How much it costs.


def calls_of(looked_at: Callable[[], object]) -> int:
    """How many calls, and steps of generators, it takes."""
    calls = 0

    def count(frame: object, kind: str, argument: object) -> None:
        nonlocal calls
        calls += kind == "call"

    sys.setprofile(count)
    try:
        looked_at()
    finally:
        sys.setprofile(None)
    return calls


def test_choices_before_content_cost_the_same_each() -> None:
    """What is asked of a decoder after each read does not grow with the choices it has met."""
    costs = []
    for choices in (2, 200):
        stream = decoder(choices)
        for index in range(choices):
            stream.feed(event(choices=[{"index": index, "delta": {"role": "assistant"}}]))
        costs.append(calls_of(lambda: (stream.begun, stream.tokens_generated)))  # noqa: B023
        assert (stream.begun, stream.tokens_generated) == (False, 0)

    assert costs[0] == costs[1]
