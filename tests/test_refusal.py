"""An engine's refusals: the number decides the class, whatever form the body has."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire import REFUSALS, capture

from vllm_http import CapacityExceeded, EngineUnavailable, InvalidRequest, Timeout, WorkerError
from vllm_http._redact import MAX_TEXT, Redactor
from vllm_http._refusal import parse_retry_after, refusal, refusal_in_stream, refusal_of_answer


redact = Redactor(["hunter2"])

STATUSES = {
    204: (EngineUnavailable, "POOL_UNAVAILABLE", False),
    301: (EngineUnavailable, "POOL_UNAVAILABLE", False),
    307: (EngineUnavailable, "POOL_UNAVAILABLE", False),
    399: (EngineUnavailable, "POOL_UNAVAILABLE", False),
    400: (InvalidRequest, "INVALID_PARAMS", False),
    401: (InvalidRequest, "UPSTREAM_AUTH", False),
    402: (InvalidRequest, "INVALID_PARAMS", False),
    403: (InvalidRequest, "UPSTREAM_AUTH", False),
    404: (InvalidRequest, "UPSTREAM_NOT_FOUND", False),
    405: (InvalidRequest, "INVALID_PARAMS", False),
    408: (Timeout, "DECODE_TIMEOUT", True),
    409: (CapacityExceeded, "ADMISSION_REJECT", True),
    413: (InvalidRequest, "INVALID_PARAMS", False),
    422: (InvalidRequest, "INVALID_PARAMS", False),
    425: (CapacityExceeded, "ADMISSION_REJECT", True),
    429: (CapacityExceeded, "ADMISSION_REJECT", True),
    499: (InvalidRequest, "INVALID_PARAMS", False),
    500: (EngineUnavailable, "POOL_UNAVAILABLE", True),
    501: (EngineUnavailable, "POOL_UNAVAILABLE", False),
    502: (EngineUnavailable, "POOL_UNAVAILABLE", True),
    503: (EngineUnavailable, "POOL_UNAVAILABLE", True),
    504: (EngineUnavailable, "POOL_UNAVAILABLE", True),
    505: (EngineUnavailable, "POOL_UNAVAILABLE", False),
    599: (EngineUnavailable, "POOL_UNAVAILABLE", False),
}


def nature(error: WorkerError) -> tuple[type[WorkerError], str, bool]:
    """The class, the code, and whether to try again."""
    return type(error), error.code, error.retriable


# Which class.


@pytest.mark.parametrize("status", STATUSES)
def test_the_status_decides_the_class(status: int) -> None:
    """Each status has one class, one code, and one answer to whether to try again."""
    error = refusal_of_answer(status, {}, b'{"error": {"message": "no", "code": 1}}', redact)

    assert nature(error) == STATUSES[status]
    assert error.status == status
    assert str(status) in error.message


@pytest.mark.parametrize("status", [status for status in STATUSES if status >= 400])
def test_a_refusal_inside_the_stream_is_the_same(status: int) -> None:
    """The code of an error event counts as the status that it stands for."""
    error = refusal_in_stream({"message": "no", "code": status}, redact)

    assert nature(error) == STATUSES[status]
    assert (error.status, error.message) == (status, f"engine answered {status}: no")


@pytest.mark.parametrize("code", [None, "4xx", "invalid", 0, 1, 200, 302, 600, 4.0, True, [400]])
def test_a_code_that_is_no_status_of_an_error_is_not_believed(code: object) -> None:
    """An error without a proper number is the engine's trouble, and may pass."""
    error = refusal_in_stream({"message": "no", "code": code}, redact)

    assert nature(error) == (EngineUnavailable, "POOL_UNAVAILABLE", True)
    assert (error.status, error.message) == (None, "engine sent an error: no")


def test_a_request_timeout_names_its_phase() -> None:
    """A 408 came before any content."""
    error = refusal(408, "")

    assert isinstance(error, Timeout)
    assert error.phase == "first_token"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_not_followed(status: int) -> None:
    """Who reads the error learns where the redirect points, without the password in it."""
    location = "http://user:hunter2@gateway:8000/v1/completions"
    error = refusal_of_answer(status, {"Location": location}, b"", redact)

    assert error.message.startswith(f"engine answered {status}, a redirect to http://****")
    assert "@gateway:8000/v1/completions; redirects are not followed" in error.message
    assert "hunter2" not in error.message


def test_a_redirect_to_nowhere_says_so() -> None:
    """A redirect may lack its Location."""
    assert "a redirect to nowhere" in refusal(302, "").message


# What the engine said.


@pytest.mark.parametrize("name", REFUSALS)
def test_a_recorded_refusal_is_quoted(name: str) -> None:
    """Each refusal recorded from a real vLLM gives its class and its own words, on one line."""
    recorded = capture(name)
    error = refusal_of_answer(recorded.status, {}, recorded.body, redact)
    said = json.loads(recorded.body or "{}")
    words = said.get("error") or said.get("detail") or ""

    assert nature(error) == STATUSES[recorded.status]
    assert error.retry_after_ms is None
    if recorded.status != 307:
        words = words["message"] if isinstance(words, dict) else words
        assert error.message.endswith(words.replace("\n", " "))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "no", "type": "x", "param": null, "code": 400}}', ": no"),
        (b'{"error": "no"}', ": no"),
        (b'{"detail": "no"}', ": no"),
        (b'{"message": "no", "object": "error"}', ": no"),
        (b'{"detail": [{"loc": ["body"], "msg": "no"}]}', ': [{"loc": ["body"], "msg": "no"}]'),
        (b'{"error": {"reason": "no"}}', ': {"reason": "no"}'),
        (b'{"error": {"message": null}}', ': {"message": null}'),
        (b'{"error": {"message": ""}}', ""),
        (b'{"error": null, "detail": "no"}', ": no"),
        (b'{"reason": "no"}', ': {"reason": "no"}'),
        (b'["no"]', ': ["no"]'),
        (b"", ""),
        (b" \r\n", ""),
        (b"\xffno", ": \ufffdno"),
        ('{"error": "näö"}'.encode(), ": näö"),
    ],
)
def test_every_form_of_body_is_read(body: bytes, text: str) -> None:
    """vLLM has four forms of error, gateways have more, and some say nothing."""
    assert refusal_of_answer(400, {}, body, redact).message == f"engine answered 400{text}"


def test_a_body_nested_too_deep_is_quoted_as_text() -> None:
    """No body can break the error that tells of it."""
    assert "[[[" in refusal_of_answer(400, {}, b"[" * 100_000, redact).message


def test_a_long_body_is_bounded() -> None:
    """An error is a sentence, not a page."""
    error = refusal_of_answer(500, {}, b"x" * 10 * MAX_TEXT, redact)

    assert len(error.message) < MAX_TEXT + 50


@pytest.mark.parametrize("body", [b"key hunter2", b'{"error": {"message": "key hunter2"}}'])
def test_a_secret_in_the_body_is_not_quoted(body: bytes) -> None:
    """The engine's words are redacted."""
    assert "hunter2" not in refusal_of_answer(401, {}, body, redact).message


# When to come back.


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (None, None),
        ("0", 0),
        ("3", 3000),
        (" 3 ", 3000),
        ("1.5", 1500),
        ("0.0001", 1),
        ("-5", 0),
        ("99999999", 99_999_999_000),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e400", None),
        ("", None),
        ("soon", None),
        ("3 s", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
    ],
)
def test_retry_after(value: str | None, milliseconds: int | None) -> None:
    """Seconds or a date, rounded up, never negative; what is neither is ignored."""
    assert parse_retry_after(value) == milliseconds


@given(value=st.text() | st.floats().map(str) | st.integers().map(str))
@example(value="1e308")
@example(value="Sun, 99999999999999999999 Nov 1994 08:49:37 GMT")
@example(value="Sun, 06 Nov 1994 08:49:37 +99999999999999999999")
def test_no_retry_after_makes_it_raise(value: str) -> None:
    """A header that makes no sense does not hide the refusal that it came with."""
    assert (parse_retry_after(value) or 0) >= 0


def test_retry_after_may_be_a_date_to_come() -> None:
    """A date is the time from now until then."""
    when = datetime.now(timezone.utc) + timedelta(seconds=60)

    milliseconds = parse_retry_after(format_datetime(when, usegmt=True))

    assert milliseconds is not None
    assert 30_000 < milliseconds <= 60_000


def test_retry_after_may_be_a_date_without_a_zone() -> None:
    """HTTP's dates are in UTC, said or not."""
    when = datetime.now(timezone.utc) + timedelta(seconds=60)

    milliseconds = parse_retry_after(when.strftime("%a %b %d %H:%M:%S %Y"))

    assert milliseconds is not None
    assert 30_000 < milliseconds <= 60_000


@pytest.mark.parametrize("status", [409, 425, 429, 500, 503])
def test_retry_after_comes_with_the_refusal(status: int) -> None:
    """Who may try again learns when."""
    assert refusal_of_answer(status, {"Retry-After": "2"}, b"", redact).retry_after_ms == 2000
    assert refusal_of_answer(status, {}, b"", redact).retry_after_ms is None
