"""Bodies in real WSGI servers: tokens come one by one, and who leaves frees the engine."""

from __future__ import annotations

import http.client
import threading
import time

import pytest
from support import SOON
from wsgi.servers import Reader, Served

from vllm_http.testing import Cut, Done, Finish, ReceivedRequest, Stall, Text, Usage, Wait


TOKENS = 5


def the_next_post(served: Served, so_far: int) -> ReceivedRequest:
    """The task that reaches the engine after so many."""
    return served.engine.wait_for_requests(so_far + 1, SOON, path="/v1/completions")[so_far]


def test_tokens_come_one_by_one(served: Served) -> None:
    """The engine makes the next token only when the client has got the last one."""
    gates = [threading.Event() for _ in range(TOKENS)]
    steps = [step for gate in gates for step in (Wait(gate), Text("x"))]
    served.engine.script(*steps, Finish(), Usage(), Done())
    lags = []

    with Reader(served.port) as reader:
        for gate in gates:
            began = time.monotonic()
            gate.set()
            event = reader.event()
            if event is not None and event["type"] == "started":
                event = reader.event()
            assert event is not None
            assert (event["type"], event["text"]) == ("token", "x")
            lags.append(time.monotonic() - began)
        last = reader.event()
        assert last is not None
        assert (last["type"], last["metrics"]["tokens_generated"]) == ("end", TOKENS)
        assert reader.event() is None

    print(f"{served.kind}: worst lag {max(lags[1:]) * 1000:.1f} ms")
    assert max(lags) < SOON


def test_headers(served: Served) -> None:
    """They say that it is a stream, to the client and to what is in between."""
    with Reader(served.port) as reader:
        headers = reader.response.headers

    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-cache, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Content-Length"] is None


def test_reader_leaves_in_mid_stream(served: Served) -> None:
    """The engine stalls after a token, the client goes, and the engine is free."""
    so_far = served.posts()
    served.engine.script(Text("x"), Stall())

    with Reader(served.port) as reader:
        reader.response.readline()
        request = the_next_post(served, so_far)
        assert not request.hung_up.is_set()

    assert request.hung_up.wait(SOON)


def test_reader_leaves_during_the_prefill(served: Served) -> None:
    """The engine has taken the task and said nothing, the client goes, and the engine is free."""
    so_far = served.posts()
    served.engine.script(Stall())

    with Reader(served.port):
        request = the_next_post(served, so_far)
        assert not request.hung_up.is_set()

    assert request.hung_up.wait(SOON)


def test_failure_is_an_event(served: Served) -> None:
    """An engine that dies in mid-stream is told as the last event, and the response ends well."""
    served.engine.script(Text("x"), Cut("rst"))

    with Reader(served.port) as reader:
        events = [event for event in iter(reader.event, None)]

    assert [event["type"] for event in events] == ["started", "token", "error"]
    assert events[-1]["error"]["error"] == "StreamingError"


def test_failure_breaks_plain_text_off(served: Served) -> None:
    """Text that is not whole does not look whole, where the server does not hide it."""
    served.engine.script(Text("Once"), Cut("rst"))

    with Reader(served.port, "/text") as reader:
        if served.kind.shows_cuts:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                reader.response.read()
        else:
            assert reader.response.read() == b"Once"
