"""The body of a response: what is written when, in each of the three forms."""

from __future__ import annotations

import json
import math
import time

import pytest
from support import EARLY, SOON
from wsgi.sources import METRICS, Numbered, Source

from vllm_http import (
    AdapterClosed,
    CapacityExceeded,
    End,
    EngineUnavailable,
    Error,
    InvalidRequest,
    Started,
    StreamingError,
    Token,
    TokenEvent,
    Unknown,
    event_from_json,
)
from vllm_http.integrations.wsgi import Body, json_lines, plain_text, sse, status_of


EVENTS: list[TokenEvent] = [
    Started("job", "0.32.0", "request"),
    Token("Once", 0),
    Token("\nupon", 1),
    End(METRICS, "stop"),
]


def rest(body: Body) -> bytes:
    """All that is still to come."""
    return b"".join(body)


# The forms.


def test_sse_frames() -> None:
    """Each event is one frame, with its type and its JSON on one line."""
    expected = "".join(f"event: {event.type}\ndata: {event.to_json()}\n\n" for event in EVENTS)

    assert rest(sse(Source(*EVENTS))) == expected.encode()


@pytest.mark.parametrize("odd", ["1\ndata: evil", "1\r2", "\0", "1\u2028", "\x1b[2J"])
def test_sse_id_of_more_than_a_line(odd: str) -> None:
    """A source of the application's own may give any: what is no line is left out."""
    source = Source(*EVENTS)
    source.last_id = odd  # type: ignore[attr-defined]

    assert rest(sse(source)) == rest(sse(Source(*EVENTS)))


@pytest.mark.parametrize("wait", [-1, -(10**30), math.inf, -math.inf, math.nan])
def test_status_of_an_impossible_wait(wait: float) -> None:
    """What an engine or a proxy tells so is no Retry-After."""
    refusal = CapacityExceeded("busy", retry_after_ms=wait)  # type: ignore[arg-type]

    assert status_of(refusal) == (429, [])


def test_sse_ids() -> None:
    """Where the source has ids, each frame has its event's, begun ahead or not."""
    body = sse(Numbered(*EVENTS))
    body.begin(timeout=SOON)
    lines = rest(body).decode().split("\n")

    assert [line for line in lines if line.startswith("id:")] == [
        "id: 1",
        "id: 2",
        "id: 3",
        "id: 4",
    ]


def test_json_lines() -> None:
    """Each line is an event again."""
    lines = rest(json_lines(Source(*EVENTS))).splitlines()

    assert [event_from_json(line) for line in lines] == EVENTS


def test_plain_text() -> None:
    """The text of choice 0, and nothing else."""
    events = [EVENTS[0], Token("On", 0), Token("no", 0, choice=1), Token("ce", 1), EVENTS[-1]]

    assert rest(plain_text(Source(*events))) == b"Once"


def test_half_a_character() -> None:
    """Half a surrogate pair, which has no UTF-8, stays what it is in JSON and breaks nothing."""
    event = Token("\ud83d", 0)
    first, _ = rest(json_lines(Source(event, EVENTS[-1]))).splitlines()

    assert event_from_json(first) == event
    assert rest(plain_text(Source(event, EVENTS[-1]))) == b"?"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (sse(Source()), "text/event-stream; charset=utf-8"),
        (json_lines(Source()), "application/x-ndjson; charset=utf-8"),
        (plain_text(Source()), "text/plain; charset=utf-8"),
    ],
)
def test_headers(body: Body, kind: str) -> None:
    """They name the form, keep proxies from buffering, and promise no length."""
    assert body.headers == [
        ("Content-Type", kind),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
    ]


# When it is written.


def test_what_is_at_hand_is_one_piece() -> None:
    """One write for all that has come; the next one for what comes later."""
    source = Source(*EVENTS[:3])
    body = plain_text(source)

    assert next(body) == b"Once\nupon"
    source.add([Token(" a", 2)])
    assert next(body) == b" a"


def test_piece_is_bounded() -> None:
    """A source that never runs dry does not keep what it gave from going out."""
    body = plain_text(Source(*[Token("x" * 2**15, i) for i in range(5)], EVENTS[-1]))

    assert [len(piece) for piece in body] == [2**16, 2**16, 2**15]


@pytest.mark.parametrize(("form", "beat"), [(sse, b": \n\n"), (json_lines, b"\n")])
def test_heartbeat(form: type[Body], beat: bytes) -> None:
    """Each so many seconds of silence bring what readers skip; an event is an event after it."""
    source = Source()
    body = form(source, heartbeat=0.05)  # type: ignore[call-arg]
    began = time.monotonic()

    assert [next(body), next(body)] == [beat, beat]
    assert time.monotonic() - began >= 2 * 0.05 - EARLY
    source.add(EVENTS)
    assert b'"Once"' in next(body)


@pytest.mark.parametrize("heartbeat", [0, -1, float("inf"), float("nan")])
def test_heartbeat_out_of_limits(heartbeat: float) -> None:
    """What is no number of seconds is refused at once."""
    with pytest.raises(InvalidRequest, match="heartbeat"):
        sse(Source(), heartbeat=heartbeat)


def test_no_heartbeat() -> None:
    """None waits for the next event."""
    assert rest(sse(Source(EVENTS[-1]), heartbeat=None)).startswith(b"event: end\n")


# Failures.


def test_error_is_the_last_frame() -> None:
    """A failure has its code, and the body ends well and is closed."""
    source = Source(EVENTS[1], Error(StreamingError("cut")))
    *_, last = rest(json_lines(source)).splitlines()

    assert json.loads(last)["error"]["code"] == "WORKER_RESET"
    assert source.closed == 1


def test_error_in_plain_text() -> None:
    """The text before it goes out; then it is raised, once."""
    body = plain_text(Source(EVENTS[1], Error(StreamingError("cut"))))

    assert next(body) == b"Once"
    with pytest.raises(StreamingError, match="cut"):
        next(body)
    assert list(body) == []


def test_source_that_fails() -> None:
    """A source's own failure is told like the engine's."""
    source = Source(EVENTS[1], EngineUnavailable("the relay is away"))
    *_, last = rest(json_lines(source)).splitlines()

    assert json.loads(last)["error"]["message"] == "the relay is away"
    assert source.closed == 1


def test_source_with_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """What is unforeseen is told as such; its text might hold anything and goes to the log only."""
    source = Source(EVENTS[1], KeyError("secret"))
    received = rest(json_lines(source))

    error = event_from_json(received.splitlines()[-1])
    assert isinstance(error, Error)
    assert isinstance(error.error, Unknown)
    assert b"secret" not in received
    assert "secret" in caplog.text
    assert source.closed == 1


def test_server_that_gives_up() -> None:
    """A worker that is told to exit inside the body leaves no task behind."""
    source = Source(SystemExit(1))

    with pytest.raises(SystemExit):
        next(sse(source))
    assert source.closed == 1


@pytest.mark.parametrize("before", [[], EVENTS[:2]])
def test_source_that_was_closed(before: list[TokenEvent]) -> None:
    """Somebody else ended it: its reader is told that this is not the end."""
    *told, error = map(event_from_json, rest(json_lines(Source(*before, None))).splitlines())

    assert told == before
    assert isinstance(error, Error)
    assert isinstance(error.error, AdapterClosed)


def test_source_that_was_closed_in_plain_text() -> None:
    """Half a text is broken off, not ended as if it were whole."""
    body = plain_text(Source(*EVENTS[:2], None))

    assert next(body) == b"Once"
    with pytest.raises(AdapterClosed, match="before its end"):
        next(body)


def test_source_with_nothing_left() -> None:
    """A browser comes back behind the last event, which it has: there is nothing to say."""
    source = Numbered(None)
    source.last_id = "4"

    assert list(sse(source)) == []


def test_source_that_goes_on_and_was_closed() -> None:
    """Who came back and got one more event is told as well that there is no end."""
    source = Numbered(EVENTS[1], None)
    source.last_id = "1"

    assert b"event: error" in rest(sse(source))


def test_begin_twice() -> None:
    """The first event is waited for once; what fails behind it belongs to the body."""
    body = sse(Source(EVENTS[0], Error(StreamingError("cut"))))
    body.begin(timeout=SOON)
    body.begin(timeout=SOON)

    assert rest(body).startswith(b"event: started\n")


def test_close() -> None:
    """It closes the source, and nothing more comes; twice is once."""
    source = Source(*EVENTS)
    body = sse(source)
    body.close()
    body.close()

    assert list(body) == []
    assert source.closed >= 1


def test_repr() -> None:
    """It names the form, and says when it is over."""
    body = plain_text(Source())
    running = repr(body)
    body.close()

    assert running.startswith("<Body text/plain; charset=utf-8 of ")
    assert repr(body) == running.removesuffix(">") + " over>"
