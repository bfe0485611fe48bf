"""Errors inside a 200 in the forms of many servers: each is told by its number and its words."""

from __future__ import annotations

import json
from typing import Any

import pytest
import support
from decoding import DONE, decoder, ended, event, text, verdict
from support import a_task, posts, the_error

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http._decoder import DocumentDecoder
from vllm_http._redact import Redactor
from vllm_http._refusal import refusal_in_document, refusal_of_answer
from vllm_http.testing import Done, EndBody, Event, FakeEngine


engine, adapter = support.engine, support.adapter

NUMBERED: list[tuple[Any, type[WorkerError], int, str]] = [
    ({"error": {"message": "no", "code": 400}}, InvalidRequest, 400, "no"),
    ({"object": "error", "message": "no", "code": "400"}, InvalidRequest, 400, "no"),
    ({"message": "slow", "code": "429"}, CapacityExceeded, 429, "slow"),
    (
        {"statusCode": 429, "message": "slow", "error": None},
        CapacityExceeded,
        429,
        "slow",
    ),
    ({"status": 503, "error": "down", "path": "/v1"}, EngineUnavailable, 503, "down"),
    ({"code": 400, "error": "no"}, InvalidRequest, 400, "no"),
    (
        {"statusCode": 422, "error": "Bad", "message": "why"},
        InvalidRequest,
        422,
        "Bad: why",
    ),
    ({"error": True, "message": "broke", "code": 501}, EngineUnavailable, 501, "broke"),
    (
        {"error": {"message": "full", "http_status_code": 422}},
        InvalidRequest,
        422,
        "full",
    ),
    (
        {"error": {"status": "INVALID_ARGUMENT", "code": 400, "msg": "no"}},
        InvalidRequest,
        400,
        "no",
    ),
    ({"error": {"error": {"message": "in", "code": 404}}}, InvalidRequest, 404, "in"),
    ({"detail": {"message": "no", "code": 400}}, InvalidRequest, 400, "no"),
    ({"title": "Bad", "status": 400, "detail": "no"}, InvalidRequest, 400, "no"),
    (
        {"error": {"message": "slow", "code": "rate_limit_exceeded"}},
        CapacityExceeded,
        429,
        "slow",
    ),
    (
        {
            "error": {
                "message": "long",
                "code": "context_length_exceeded",
                "param": "messages",
            }
        },
        InvalidRequest,
        400,
        "long",
    ),
]

UNNUMBERED: list[tuple[Any, str]] = [
    ({"error": "boom"}, "boom"),
    ({"error": "Bad input", "error_type": "validation"}, "Bad input"),
    ({"detail": "Not Found"}, "Not Found"),
    ({"detail": [{"loc": ["body"], "msg": "x"}]}, '[{"loc": ["body"], "msg": "x"}]'),
    (
        {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
        "busy",
    ),
    ({"error": {"message": "x", "code": "odd"}}, "x"),
    ({"error": 503}, '{"error": 503}'),
    ({"errors": ["a", "b"]}, '["a", "b"]'),
]


@pytest.mark.parametrize(("form", "kind", "status", "words"), NUMBERED)
def test_each_form_of_a_numbered_error_is_told(
    form: Any, kind: type[WorkerError], status: int, words: str
) -> None:
    """In an event of any type, and in a document, whether a stream was asked for or not."""
    whole = json.dumps(form).encode()
    document = DocumentDecoder(choices=1, max_event_bytes=1 << 20, redact=Redactor())
    document.feed(whole)
    document.feed(b"")
    told = [
        ended(b"data: " + whole + b"\n\n", DONE),
        ended(b"event: error\ndata: " + whole + b"\n\n"),
        ended(whole),
        refusal_in_document(whole, Redactor()),
        document.failure,
    ]

    for error in told:
        assert type(error) is kind
        assert (error.status, error.message) == (
            status,
            f"engine answered {status}: {words}",
        )


@pytest.mark.parametrize(("form", "words"), UNNUMBERED)
def test_each_form_of_an_error_without_a_number_is_told(form: Any, words: str) -> None:
    """Whether it comes in an event of its own type or not, before content and after it."""
    whole = b"data: " + json.dumps(form).encode() + b"\n\n"

    for events in ([whole], [b"event: error\n" + whole], [text("a"), whole]):
        error = ended(*events, DONE)
        assert type(error) is EngineUnavailable
        assert (error.status, error.message) == (None, f"engine sent an error: {words}")


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"type": "ping"},
        {"message": "hello"},
        {"error": None},
        {"detail": ""},
        {"type": "x", "detail": "y"},
    ],
)
def test_events_without_choices_that_are_no_errors_end_nothing(
    odd: dict[str, Any],
) -> None:
    """A heartbeat, say."""
    stream = decoder()
    stream.feed(event(**odd) + text("a", "stop") + DONE)

    assert verdict(stream) is None


def test_an_answer_may_have_a_detail() -> None:
    """Beside choices only `error` is one."""
    assert ended(event(choices=[{"text": "a", "finish_reason": "stop"}], detail="x"), DONE) is None


DEAD = [
    "AsyncEngineDeadError: Background loop has errored already.",
    "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "cannot schedule new futures after shutdown",
]


@pytest.mark.parametrize("words", DEAD)
def test_a_dead_engine_is_known_by_its_words_wherever_they_stand(words: str) -> None:
    """With the exception's name before them, and in a refusal by status."""
    body = {"error": {"message": words, "code": 400}}
    by_status = refusal_of_answer(400, {}, json.dumps(body).encode(), Redactor())

    for error in (ended(event(**body), DONE), by_status):
        assert type(error) is EngineUnavailable
        assert (error.status, error.retriable) == (400, True)


@pytest.mark.parametrize(
    "form",
    [
        {"message": "no", "code": "400"},
        {"code": 400, "error": "no"},
        {"error": {"message": "no", "code": "invalid_api_key"}},
    ],
    ids=str,
)
def test_a_refusal_in_any_form_costs_one_request(
    engine: FakeEngine, adapter: VllmHttpAdapter, form: dict[str, Any]
) -> None:
    """Another try would meet the same."""
    engine.script(Event(form), Done(), EndBody())

    error = the_error(adapter.submit(a_task()))

    assert isinstance(error, InvalidRequest)
    assert len(posts(engine)) == 1
