"""Each step of a script, by what a client sees of it."""

from __future__ import annotations

import threading
import time

import pytest
from testing.raw_client import RawClient, read_chunk, read_head

from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    EndBody,
    ErrorEvent,
    Event,
    FakeEngine,
    Finish,
    Headers,
    Normal,
    Raw,
    Role,
    Stage,
    Status,
    Text,
    Tokens,
    Usage,
    Wait,
    WireBytes,
)


def test_status_with_json(engine: FakeEngine, client: RawClient) -> None:
    """Status sends a whole JSON answer with the headers given."""
    engine.script(Status(429, {"error": "busy"}, {"retry-after": "3"}))

    response = client.complete(stream=True)

    assert response.head.status == 429
    assert response.head.header("retry-after") == "3"
    assert response.head.header("content-type") == "application/json"
    assert response.json == {"error": "busy"}


def test_status_with_bytes(engine: FakeEngine, client: RawClient) -> None:
    """Status sends bytes as they are, as HTML unless the headers name another type."""
    engine.script(Status(502, b"<h1>Bad</h1>"))
    engine.script(Status(502, b"Bad", [("Content-Type", "text/plain")]))

    html, plain = client.complete(), client.complete()

    assert (html.body, html.head.header("content-type")) == (
        b"<h1>Bad</h1>",
        "text/html; charset=utf-8",
    )
    assert (plain.body, plain.head.header("Content-Type")) == (b"Bad", "text/plain")
    assert plain.head.header("content-type") is None


def test_status_without_a_body(engine: FakeEngine, client: RawClient) -> None:
    """Status alone has an empty body and leaves the connection usable."""
    engine.script(Status(503))

    empty = client.complete()

    assert (empty.head.status, empty.head.header("content-length"), empty.body) == (503, "0", b"")
    assert client.complete().head.status == 200


def test_headers_come_at_once(engine: FakeEngine, client: RawClient) -> None:
    """Headers are on the wire while the script still waits."""
    gate = threading.Event()
    engine.script(Headers(headers={"x-a": "1"}), Wait(gate), Text("late"))
    client.start()

    head = read_head(client.stream)
    gate.set()

    assert (head.status, head.header("x-a")) == (200, "1")
    assert b'"text":"late"' in read_chunk(client.stream)


def test_headers_replace_their_namesakes(engine: FakeEngine, client: RawClient) -> None:
    """A header of the script takes the place of the engine's."""
    engine.script(Headers(207, {"content-type": "text/html"}))

    response = client.complete(stream=True)

    assert response.head.status == 207
    assert response.head.header("content-type") == "text/html"


def test_body_without_chunks_ends_with_the_connection(
    engine: FakeEngine, client: RawClient
) -> None:
    """Without chunks, the connection's end is the body's."""
    engine.script(Headers(chunked=False), Raw(b"abc"), Done())
    client.start()

    head = read_head(client.stream)

    assert head.header("connection") == "close"
    assert head.header("transfer-encoding") is None
    assert client.stream.read() == b"abcdata: [DONE]\n\n"


def test_wait_lasts_its_seconds(engine: FakeEngine, client: RawClient) -> None:
    """Wait with a number is that many seconds of silence."""
    engine.script(Wait(0.05))
    begin = time.monotonic()

    client.complete(stream=True)

    assert time.monotonic() - begin >= 0.05


def test_tokens_are_those_of_the_normal_answer(engine: FakeEngine, client: RawClient) -> None:
    """Tokens(n) are the first n words of what the engine would have said."""
    normal = client.complete(stream=True, max_tokens=5).texts
    engine.script(Tokens(2), Tokens(1))

    assert client.complete(stream=True).texts == normal[:3]


def test_tokens_keep_the_pace() -> None:
    """Tokens come after the engine's delays, the first one after its own."""
    with FakeEngine(first_token_delay=0.06, token_delay=0.02) as engine:
        engine.script(Tokens(3))
        with RawClient(engine) as client:
            begin = time.monotonic()
            client.complete(stream=True)

    assert time.monotonic() - begin >= 0.1


def test_text_takes_the_form_of_the_path(engine: FakeEngine, client: RawClient) -> None:
    """Text is a completions delta or a chat delta, whichever was asked for."""
    engine.script(Text("é\n"))
    engine.script(Text("é\n"))

    (completion,) = client.complete(stream=True).events
    (chat,) = client.chat(stream=True).events

    assert completion["choices"][0]["text"] == "é\n"
    assert chat["choices"][0]["delta"] == {"content": "é\n"}


def test_steps_reach_other_choices(engine: FakeEngine, client: RawClient) -> None:
    """Tokens, Text, Role and Finish can be those of any choice."""
    engine.script(Role(choice=1), Tokens(1, choice=1), Text("x", choice=1), Finish(choice=1))

    events = client.chat(stream=True, n=2).events

    assert [event["choices"][0]["index"] for event in events] == [1, 1, 1, 1]


def test_event_is_json_or_text(engine: FakeEngine, client: RawClient) -> None:
    """Event sends compact JSON with real UTF-8, or any text as it is."""
    engine.script(Event({"a": [1, "é"]}), Event("not json"))

    assert client.complete(stream=True).chunks == [
        'data: {"a":[1,"é"]}\n\n'.encode(),
        b"data: not json\n\n",
    ]


def test_comment_and_raw_are_chunks(engine: FakeEngine, client: RawClient) -> None:
    """Comment is vLLM's keep-alive; Raw is any chunk."""
    engine.script(Comment(), Comment("hello"), Raw(b"\x00\xff"))

    assert client.complete(stream=True).chunks == [
        b": keep-alive\n\n",
        b": hello\n\n",
        b"\x00\xff",
    ]


def test_wire_bytes_are_the_whole_answer(engine: FakeEngine, client: RawClient) -> None:
    """WireBytes alone send nothing else: no headers, no zero chunk."""
    engine.script(WireBytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"))

    assert client.complete().body == b"ok"
    assert client.get("/version").json == {"version": "0.32.0"}


def test_wire_bytes_break_the_framing(engine: FakeEngine, client: RawClient) -> None:
    """WireBytes after the headers can promise a chunk that never comes."""
    engine.script(Headers(), WireBytes(b"ff\r\nabc"), Cut("fin"))
    client.start()
    read_head(client.stream)

    assert client.stream.read() == b"ff\r\nabc"


def test_finish_and_usage(engine: FakeEngine, client: RawClient) -> None:
    """Finish carries the reasons, and Usage the count of what was sent."""
    engine.script(Tokens(2), Text("x"), Finish("stop", "end", "END"), Usage(), Done())

    *_, finish, usage = client.complete(prompt="a b c", stream=True).events

    assert finish["choices"][0]["text"] == "end"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["choices"][0]["stop_reason"] == "END"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}


def test_end_body_ends_the_response(engine: FakeEngine, client: RawClient) -> None:
    """After EndBody the client has the whole response, though the script goes on."""
    gate = threading.Event()
    engine.script(Text("x"), EndBody(), Wait(gate))

    assert client.complete(stream=True).texts == ["x"]
    assert engine.running == 1
    gate.set()
    engine.wait_idle()


def test_error_event(engine: FakeEngine, client: RawClient) -> None:
    """ErrorEvent is the engine's error object in the stream."""
    engine.script(ErrorEvent("Broken", 503, "Service Unavailable"))

    (event,) = client.complete(stream=True).events

    expected = {"message": "Broken", "type": "Service Unavailable", "param": None, "code": 503}
    assert event == {"error": expected}


def test_cut_by_reset(engine: FakeEngine, client: RawClient) -> None:
    """Cut("rst") resets the connection after what was sent."""
    engine.script(Text("x"), Cut("rst"))
    client.start()
    read_head(client.stream)
    read_chunk(client.stream)

    with pytest.raises(ConnectionResetError):
        client.stream.read()


def test_cut_by_fin(engine: FakeEngine, client: RawClient) -> None:
    """Cut("fin") ends the connection without the zero chunk, and it is no hang-up of the client."""
    engine.script(Text("x"), Cut("fin"))
    client.start()
    read_head(client.stream)
    read_chunk(client.stream)

    assert client.stream.read() == b""
    (request,) = engine.requests
    assert request.finished.wait(5)
    assert not request.hung_up.is_set()


def test_cut_before_anything(engine: FakeEngine, client: RawClient) -> None:
    """Cut as the only step leaves the client without a single byte."""
    engine.script(Cut("fin"))
    client.start()

    assert client.stream.read() == b""


def test_normal_is_the_engines_own_answer(engine: FakeEngine, client: RawClient) -> None:
    """Normal after other steps gives the answer that would have come without a script."""
    expected = client.complete(max_tokens=4).json["choices"]
    engine.script(Wait(0.01), Normal())

    assert client.complete(max_tokens=4).json["choices"] == expected


def test_empty_script_is_an_empty_stream(engine: FakeEngine, client: RawClient) -> None:
    """A script without steps sends headers and the end of the body."""
    engine.script()

    response = client.complete(stream=True)

    assert (response.head.status, response.chunks) == (200, [])


def test_script_plays_whatever_was_asked(engine: FakeEngine, client: RawClient) -> None:
    """A request that would have been refused plays the script all the same."""
    engine.script(Tokens(1))
    engine.script(Tokens(1))

    assert len(client.complete(model="nope", temperature=9).events) == 1
    assert len(client.complete(max_tokens="many").events) == 1


def test_own_steps_are_welcome(engine: FakeEngine, client: RawClient) -> None:
    """Anything with a play method is a step."""

    class Shout:
        def play(self, stage: Stage) -> None:
            stage.answer.event("HELLO")

    engine.script(Shout())

    assert client.complete(stream=True).chunks == [b"data: HELLO\n\n"]
