"""What strangers get to see of a failure, and what odd readers of a body get."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from wsgi.sources import METRICS, Source

from vllm_http import (
    AdapterClosed,
    AnswerInfo,
    CapacityExceeded,
    End,
    EngineUnavailable,
    Error,
    InvalidRequest,
    StreamingError,
    Timeout,
    Token,
    Unknown,
    WorkerError,
    event_from_json,
)
from vllm_http.integrations.wsgi import json_lines, plain_text, sse


SHOWN = ("error", "code", "message", "phase")
INSIDE = "no answer from http://vllm-7.internal:8000: Connection refused"
ROOT = Path(__file__).parents[2]


def failed(error: WorkerError) -> Source:
    """A stream that fails so, with all that an `Error` may tell beside it."""
    return Source(Token("Once", 0), Error(error, METRICS, info=AnswerInfo(model=INSIDE)))


def last_event(received: bytes) -> dict[str, Any]:
    """The data of the last server-sent event."""
    (*_, last) = re.findall(rb"^data: (.*)$", received, re.MULTILINE)
    found: dict[str, Any] = json.loads(last)
    return found


@pytest.mark.parametrize(
    "error",
    [
        EngineUnavailable(INSIDE, status=502, job_id="j"),
        InvalidRequest(INSIDE, status=404, code="UPSTREAM_NOT_FOUND"),
        CapacityExceeded(INSIDE, retry_after_ms=5),
        StreamingError(INSIDE),
        Timeout(INSIDE, phase="stall"),
        AdapterClosed(INSIDE),
        Unknown(INSIDE),
        WorkerError(INSIDE, code=f"not a code {INSIDE}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_browser_sees_the_code_and_a_sentence(error: WorkerError) -> None:
    """No address, no word of the engine's, no number of it."""
    received = b"".join(sse(failed(error)))

    told = last_event(received)
    assert b"internal" not in received
    assert b"502" not in received
    nothing = {None, False, True}
    assert (told["metrics"], told["choices"], told["info"]) == (None, [], None)
    assert {v for k, v in told["error"].items() if k not in SHOWN} <= nothing
    assert told["error"]["error"] == type(error).__name__
    assert re.fullmatch(r"[A-Z][a-z ,;']+\.", told["error"]["message"])
    if "not a code" not in error.code:
        assert told["error"]["code"] == error.code
    again = event_from_json(json.dumps(told))
    assert isinstance(again, Error)
    assert type(again.error) is type(error)


def test_what_the_source_itself_fails_with_is_inside_too() -> None:
    """A relay that is away has an address as well."""
    received = b"".join(sse(Source(Token("Once", 0), EngineUnavailable(INSIDE))))

    assert b"internal" not in received


def test_the_whole_where_it_is_asked_for() -> None:
    """For those who see the machine anyway."""
    error = EngineUnavailable(INSIDE, status=502)

    told = last_event(b"".join(sse(failed(error), public=False)))

    assert told == Error(error, METRICS, info=AnswerInfo(model=INSIDE)).to_dict()


def test_json_lines_are_for_programs_unless_told_otherwise() -> None:
    """The same switch, the other way round."""
    error = EngineUnavailable(INSIDE)

    assert INSIDE.encode() in b"".join(json_lines(failed(error)))
    assert b"internal" not in b"".join(json_lines(failed(error), public=True))


@pytest.mark.parametrize("public", ["yes", 1, None])
def test_public_is_true_or_false(public: Any) -> None:
    """A switch that does not say what it means shows the whole of it."""
    with pytest.raises(InvalidRequest, match=r"^public: "):
        sse(Source(), public=public)


@pytest.mark.parametrize("heartbeat", ["5", True, [], 10**400])
def test_an_odd_heartbeat(heartbeat: Any) -> None:
    """Refused, whatever it is."""
    with pytest.raises(InvalidRequest, match=r"^heartbeat: "):
        sse(Source(), heartbeat=heartbeat)


def test_a_body_that_is_taken_twice_is_refused() -> None:
    """It would look like an answer without a word."""
    body = plain_text(Source(Token("Once", 0), End(METRICS, "stop")))

    assert list(body) == [b"Once"]
    with pytest.raises(InvalidRequest, match="taken already"):
        list(body)


def test_a_body_that_nobody_takes_ends_its_task() -> None:
    """A HEAD request: the server closes what it did not iterate."""
    source = Source(Token("Once", 0))
    sse(source).close()

    assert source.closed == 1


EXAMPLES = [ROOT / "docs" / "wsgi.md", *sorted((ROOT / "examples").rglob("*.py"))]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_engine_s_words_are_no_html(path: Path) -> None:
    """Every example that answers with a message says that it is plain text."""
    answers = re.findall(r"\bResponse\(\s*error\.message[^)]*\)", path.read_text())

    assert [answer for answer in answers if "text/plain" not in answer] == []
