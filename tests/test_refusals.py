"""What becomes of an engine's refusal: its class, code, status and hope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    Error,
    InvalidRequest,
    RetryPolicy,
    StreamingError,
    TaskRequest,
    Timeout,
    Timeouts,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import (
    Done,
    ErrorEvent,
    FakeEngine,
    Finish,
    Headers,
    Raw,
    Status,
    Step,
    Text,
)


ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


def failure(engine: FakeEngine, *steps: Step) -> WorkerError:
    """The error of a task that the engine answers with these steps, without a retry."""
    engine.script(*steps)
    with VllmHttpAdapter(engine.url, retry=ONCE, timeouts=Timeouts(total=10)) as adapter:
        *_, last = adapter.submit(TaskRequest(prompt="Hello"))
    assert isinstance(last, Error)
    return last.error


STATUSES: list[tuple[int, type[WorkerError], str, bool]] = [
    (400, InvalidRequest, "INVALID_PARAMS", False),
    (401, InvalidRequest, "UPSTREAM_AUTH", False),
    (403, InvalidRequest, "UPSTREAM_AUTH", False),
    (404, InvalidRequest, "UPSTREAM_NOT_FOUND", False),
    (405, InvalidRequest, "INVALID_PARAMS", False),
    (408, Timeout, "DECODE_TIMEOUT", True),
    (409, CapacityExceeded, "ADMISSION_REJECT", True),
    (413, InvalidRequest, "INVALID_PARAMS", False),
    (422, InvalidRequest, "INVALID_PARAMS", False),
    (425, CapacityExceeded, "ADMISSION_REJECT", True),
    (429, CapacityExceeded, "ADMISSION_REJECT", True),
    (500, EngineUnavailable, "POOL_UNAVAILABLE", True),
    (501, EngineUnavailable, "POOL_UNAVAILABLE", False),
    (502, EngineUnavailable, "POOL_UNAVAILABLE", True),
    (503, EngineUnavailable, "POOL_UNAVAILABLE", True),
    (504, EngineUnavailable, "POOL_UNAVAILABLE", True),
    (505, EngineUnavailable, "POOL_UNAVAILABLE", False),
    (507, EngineUnavailable, "POOL_UNAVAILABLE", False),
]


@pytest.mark.parametrize(("status", "kind", "code", "retriable"), STATUSES)
@pytest.mark.parametrize("inside", [False, True], ids=["status", "in-stream"])
def test_the_status_decides(
    engine: FakeEngine,
    status: int,
    kind: type[WorkerError],
    code: str,
    retriable: bool,
    inside: bool,
) -> None:
    """A refusal inside a 200 is classified as one by status is, whatever its `type` says."""
    body = {"error": {"message": "no", "type": "Whatever", "code": status}}
    step = ErrorEvent("no", code=status, type="Whatever") if inside else Status(status, body)
    error = failure(engine, step)

    assert kind is type(error)
    assert (status, code, retriable) == (error.status, error.code, error.retriable)
    assert "no" in error.message
    assert error.job_id


def test_a_408_is_a_first_token_timeout(engine: FakeEngine) -> None:
    """The engine gave up waiting, before any content."""
    error = failure(engine, Status(408, {"error": {"message": "slow", "code": 408}}))

    assert isinstance(error, Timeout)
    assert error.phase == "first_token"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named_and_not_followed(engine: FakeEngine, status: int) -> None:
    """A POST with a bearer goes nowhere else."""
    error = failure(engine, Status(status, b"", [("Location", "http://elsewhere.invalid/v1")]))

    assert type(error) is EngineUnavailable
    assert not error.retriable
    assert "elsewhere.invalid" in error.message


def test_retry_after_is_told_in_milliseconds(engine: FakeEngine) -> None:
    """Who submits again knows when."""
    error = failure(engine, Status(429, {"error": {"message": "full"}}, [("Retry-After", "7")]))

    assert error.retry_after_ms == 7000


@pytest.mark.parametrize(
    "steps",
    [
        (Status(200, b"<html>hello</html>"),),
        (Status(200, {"choices": []}),),
        (Headers(), Raw(b"data: {not json}\n\n")),
    ],
    ids=["html", "json", "broken"],
)
def test_garbage_is_not_worth_another_try(engine: FakeEngine, steps: tuple[Step, ...]) -> None:
    """What is no event stream will be none the next time."""
    error = failure(engine, *steps)

    assert type(error) is StreamingError
    assert not error.retriable


def test_an_empty_stream_was_cut(engine: FakeEngine) -> None:
    """A 200 that ends before any content may work the next time."""
    error = failure(engine, Headers())

    assert type(error) is StreamingError
    assert error.retriable


@pytest.mark.parametrize("body", [{"error": {"message": "x" * 100_000}}, b"x" * 100_000])
def test_an_engine_s_message_is_bounded(engine: FakeEngine, body: Any) -> None:
    """2 kB are enough to say why."""
    error = failure(engine, Status(400, body))

    assert len(error.message) < 2500
    assert "xxx" in error.message


# What the message says besides the engine's own words.


def told(engine: FakeEngine, *steps: Step, **options: Any) -> str:
    """The message of a task's error."""
    engine.script(*steps)
    with VllmHttpAdapter(engine.url, retry=ONCE, **options) as adapter:
        *_, last = adapter.submit(TaskRequest(prompt="Hello"))
    assert isinstance(last, Error)
    return last.error.message


def test_a_404_names_the_url(engine: FakeEngine) -> None:
    """A wrong path in the base URL is the usual reason."""
    message = told(engine, Status(404, {"detail": "Not Found"}))

    assert message == f"engine answered 404 for {engine.url}/v1/completions: Not Found"


@pytest.mark.parametrize(
    ("options", "which"),
    [
        ({}, "the API key is missing: none was sent; give it as api_key"),
        ({"api_key": "wr0ng-k3y"}, "the API key that was sent is wrong: check api_key"),
        (
            {"headers": {"authorization": "Bearer wr0ng-k3y"}},
            "the API key that was sent is wrong: check api_key",
        ),
    ],
)
def test_a_401_says_what_about_the_key(options: dict[str, Any], which: str) -> None:
    """Whether it is missing or wrong, and where it is given."""
    with FakeEngine(api_key="right") as engine:
        message = told(engine, Status(401, {"error": "Unauthorized"}), **options)

    assert message == f"engine answered 401 ({which}): Unauthorized"


PAGE = b"<html><head><title>It works!</title></head><body><p>long</p></body></html>"


@pytest.mark.parametrize(
    "steps",
    [
        (Status(404, PAGE),),
        (Status(502, PAGE),),
        (Status(503, PAGE, {"content-type": "text/plain"}),),
        (Status(200, PAGE),),
        (Status(200, PAGE, {"content-type": "text/plain"}),),
        (Headers(), Raw(PAGE)),
        (Headers(), *(Raw(PAGE[n : n + 1]) for n in range(len(PAGE)))),
    ],
    ids=["404", "502", "as text", "200", "200 as text", "200 as a stream", "byte by byte"],
)
def test_a_page_is_told_in_one_line(engine: FakeEngine, steps: tuple[Step, ...]) -> None:
    """Whoever asks the wrong port learns that no vLLM is there, and what is."""
    message = told(engine, *steps)

    assert f"for {engine.url}/v1/completions" in message
    assert "this is no vLLM server" in message
    assert message.endswith("It works!")
    assert "<" not in message


def test_json_for_a_stream_says_what_to_do(engine: FakeEngine) -> None:
    """What came, and who may have dropped what was asked for."""
    message = told(engine, Status(200, {"choices": []}))

    assert message.startswith(f"engine answered 200 for {engine.url}/v1/completions with applicat")
    assert "not text/event-stream" in message
    assert 'does a gateway before it drop "stream"?' in message
    assert '{"choices":[]}' in message.replace(" ", "")


@pytest.mark.parametrize(
    "kind",
    [
        "text/event-stream; charset=utf-8",
        "Text/Event-Stream ;charset=UTF-8",
        " text/event-stream\t",
        "text/event-stream;",
        "text/event-stream, text/event-stream",
    ],
)
def test_a_content_type_may_be_written_oddly(engine: FakeEngine, kind: str) -> None:
    """Case, spaces and parameters say nothing."""
    engine.script(Headers(headers={"content-type": kind}), Text("a"), Finish("stop"), Done())
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        assert adapter.submit(TaskRequest(prompt="Hello")).result(timeout=10).text == "a"


def test_an_error_as_json_inside_a_200_is_the_one_it_names(engine: FakeEngine) -> None:
    """Where a stream was wanted as well, by its number."""
    error = failure(engine, Status(200, {"error": {"message": "full", "code": 429}}))

    assert (type(error), error.status, error.retriable) == (CapacityExceeded, 429, True)
    assert error.message == "engine answered 429: full"
