"""An engine, or who poses as one, that sends without end: what it costs is bounded, and so is when.

Memory is what the process took at its peak, the server's thread included; a flood is larger than
any bound by far, and counts what the client took of it.
"""

from __future__ import annotations

import socket

import pytest
from decoding import DONE, text
from floods import (
    CHUNKED,
    DOCUMENT_BOUND,
    FLOOD,
    MB,
    OK,
    PATIENT,
    SHORT,
    STREAM,
    Flood,
    client_of,
    measured,
    outcome,
)
from peers import Peer, read_head
from support import SOON, a_task, kinds, ran_out, stopwatch

from vllm_http import (
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    Timeouts,
    VllmHttpAdapter,
)


# One event.


@pytest.mark.parametrize("begin", [b"data: ", b": ", b"", text("a") + b"data: "])
@pytest.mark.parametrize("block", [b"x" * 4096, b"data: x\n" * 512], ids=["a line", "many lines"])
def test_event_without_an_end_that_comes_slowly(begin: bytes, block: bytes) -> None:
    """It is given up at its limit, by the read that crosses it and not by a clock."""
    flood = Flood(STREAM + begin, block, pause=0.001)
    error, seen = outcome(flood, max_event_bytes=2**16)

    assert isinstance(error, StreamingError)
    assert "more than 65536 bytes" in error.message
    assert seen == ["started", *(["token"] if b"choices" in begin else []), "error"]
    assert flood.sent < 2 * MB


@pytest.mark.parametrize("block", [b"x" * 2**16, b"data: x\n" * 2**13], ids=["a line", "lines"])
def test_event_without_an_end_that_comes_fast(block: bytes) -> None:
    """What is kept is of the size of the limit, not of what is sent."""
    error, _ = outcome(Flood(STREAM + b"data: ", block))

    assert isinstance(error, StreamingError)
    assert f"more than {MB} bytes" in error.message


# Bodies that are shown, not streamed.

ENDLESS = {
    "to the end": b"\r\n",
    "content-length": b"content-length: 999999999999\r\n\r\n",
    "chunked": b"transfer-encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("framing", ENDLESS)
@pytest.mark.parametrize("status", [b"401 No", b"503 No", b"200 OK", b"307 Elsewhere"])
def test_error_body_without_an_end(status: bytes, framing: str) -> None:
    """Its start is shown and the rest not taken, though there is no clock to end it."""
    block = b"x" * 2**16
    if framing == "chunked":
        block = b"10000\r\n" + block + b"\r\n"
    flood = Flood(b"HTTP/1.1 " + status + b"\r\n" + ENDLESS[framing], block)
    error, seen = outcome(flood, Timeouts(first_token=None))

    assert seen == ["error"]
    assert isinstance(error, (InvalidRequest, EngineUnavailable, StreamingError))
    assert len(error.message) < 4096
    assert flood.sent < FLOOD / 4


@pytest.mark.parametrize(
    "call", [VllmHttpAdapter.metrics, VllmHttpAdapter.models, VllmHttpAdapter.props]
)
@pytest.mark.parametrize("framing", ["to the end", "content-length"])
def test_document_without_an_end(framing: str, call: object) -> None:
    """A small call takes no more than a document's worth."""
    flood = Flood(OK + ENDLESS[framing], b"\xff" * 2**16)
    with client_of(flood) as adapter, measured() as peak:
        with pytest.raises(StreamingError):
            call(adapter)  # type: ignore[operator]
        assert flood.left.wait(SOON)

    assert peak.growth < DOCUMENT_BOUND
    assert flood.sent < FLOOD / 4


# Heads.


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (OK, b"x-a: b\r\n"),
        (OK + b"x-a: ", b"x" * 2**12),
        (OK + b"x-a: b\r\n", b" folded\r\n"),
        (b"", b"x" * 2**12),
        (b"HTTP/1.1 200 ", b"x" * 2**12),
        (b"HTTP/1.1 103 Early\r\n", b"x-a: b\r\n"),
        (b"HTTP/1.1 103 Early\r\nx-a: ", b"x" * 2**12),
    ],
    ids=["headers", "header", "folds", "no HTTP", "status line", "interim headers", "interim line"],
)
def test_head_without_an_end(head: bytes, block: bytes) -> None:
    """Lines and their number are limited; what has no end is no answer."""
    flood = Flood(head, block)
    error, seen = outcome(flood)

    assert (type(error), seen) == (EngineUnavailable, ["error"])
    assert len(error.message) < 4096
    assert flood.sent < FLOOD / 4


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
@pytest.mark.parametrize("pause", [0.0, 0.01], ids=["fast", "slowly"])
def test_interim_answers_without_an_end(status: bytes, pause: float) -> None:
    """The first-token clock ends them: it runs from the request on."""
    flood = Flood(b"", b"HTTP/1.1 " + status + b"\r\nx: y\r\n\r\n", pause)
    with stopwatch() as watch:
        error, _ = outcome(flood, SHORT)

    ran_out(error, "first_token", watch)


@pytest.mark.parametrize("head", [OK + b"x-a: ", OK, b""], ids=["header", "headers", "status line"])
def test_head_that_drips(head: bytes) -> None:
    """A byte now and then resets no clock."""
    with stopwatch() as watch:
        error, _ = outcome(Flood(head, b"x" if head != OK else b"x:\r\n", 0.01), SHORT)

    ran_out(error, "first_token", watch)


# Chunks.


def test_chunk_extension_without_an_end() -> None:
    """The line of a chunk's size has a limit."""
    error, _ = outcome(Flood(CHUNKED + b"1;x=", b"x" * 2**12))

    assert isinstance(error, StreamingError)
    assert "LineTooLong" in error.message or "line" in error.message


@pytest.mark.parametrize(
    ("begin", "block"),
    [(b"", b"x: y\r\n"), (b"x: ", b"x" * 2**12)],
    ids=["many", "one"],
)
def test_trailers_without_an_end(begin: bytes, block: bytes) -> None:
    """They have a limit, too, and are no [DONE]."""
    token = text("a")
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(token), token)
    error, seen = outcome(Flood(CHUNKED + chunk + begin, block))

    assert isinstance(error, StreamingError)
    assert seen == ["started", "token", "error"]


@pytest.mark.parametrize("begin", [b"", text("a")], ids=["first_token", "stall"])
def test_chunk_extensions_on_every_chunk(begin: bytes) -> None:
    """Eight kilobytes around each byte of a comment: the clock ends it, and memory stays."""
    head = CHUNKED + (b"%x\r\n%b\r\n" % (len(begin), begin) if begin else b"")
    block = b"3;x=" + b"x" * 8000 + b"\r\n:\n\n\r\n"
    with stopwatch() as watch:
        error, _ = outcome(Flood(head, block), SHORT)

    ran_out(error, "stall" if begin else "first_token", watch)


# Streams that say nothing.


@pytest.mark.parametrize("begin", [b"", text("a")], ids=["first_token", "stall"])
@pytest.mark.parametrize(
    "block", [b": ping\n\n", b": ping\r\n\r\n", b"\n", b"data: {}\n\n", b"id: 1\n\n"]
)
def test_nothing_without_an_end(begin: bytes, block: bytes) -> None:
    """As much as the wire carries of what is no content: the clock rings all the same."""
    with stopwatch() as watch:
        error, _ = outcome(Flood(STREAM + begin, block * 500), SHORT)

    ran_out(error, "stall" if begin else "first_token", watch)


def test_flood_starves_no_other_stream() -> None:
    """One reader serves all streams: another's tokens come through while the first floods."""
    flood = Flood(STREAM + text("a"), b": ping\n\n" * 5000)
    honest = STREAM + text("b") + text("c", "stop") + DONE
    floods = [flood]

    def talk(sock: socket.socket) -> None:
        if floods:
            floods.pop()(sock)
        elif read_head(sock):
            sock.sendall(honest)

    with Peer(talk) as peer, VllmHttpAdapter(peer.url(), timeouts=PATIENT) as adapter:
        adapter._version._known = "0"
        with adapter.submit(a_task()) as flooded:
            assert kinds([next(flooded), next(flooded)]) == ["started", "token"]
            assert [adapter.submit(a_task()).result(SOON).text for _ in range(5)] == ["bc"] * 5
        assert flood.left.wait(SOON)
