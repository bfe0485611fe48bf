"""What another try meets again costs one request and says what to do; what may pass is tried again.

Told by what has happened, not by the class of an exception.
"""

from __future__ import annotations

import gzip
import socket
import zlib

import pytest
from calls_support import Reply, hang_up, replying
from decoding import DONE, text
from peers import Certificate, Peer, certificate, resets
from support import QUICKLY, SOON, a_task, failure

from vllm_http import (
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    VllmHttpAdapter,
    WorkerError,
)


__all__ = ["certificate"]

WHOLE = text("a", "stop") + DONE
TRIES = QUICKLY.attempts


def answers(data: bytes) -> Reply:
    """These bytes, to the letter, and the connection's end."""

    def reply(sock: socket.socket) -> None:
        sock.sendall(data)
        hang_up(sock)

    return reply


def ok(body: bytes, *headers: str, kind: str | None = "text/event-stream") -> Reply:
    """A 200 with this body."""
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers]
    lines += [f"content-type: {kind}"] if kind is not None else []
    return answers("\r\n".join([*lines, "", ""]).encode() + body)


def outcome(reply: Reply) -> tuple[WorkerError, int]:
    """The error of a task, and how often it was sent."""
    with replying(reply) as server, VllmHttpAdapter(server.url, retry=QUICKLY) as adapter:
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))
        return error, len(server.posts)


def text_of(reply: Reply) -> str:
    """The text of a task that this answers."""
    with replying(reply) as server, VllmHttpAdapter(server.url, retry=QUICKLY) as adapter:
        adapter._version._known = "0"
        return adapter.submit(a_task()).result(timeout=SOON).text


# What is no HTTP.


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "begins with 'SSH-2.0-OpenSSH_9.6"),
        (b"<html>hi</html>", "begins with '<html>hi</html>'"),
        (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", "begins with '"),
        (b"HTTP/2 200\r\n\r\n", "begins with 'HTTP/2"),
        (b"HTTP/1.1 000 Huh\r\n\r\n", "begins with 'HTTP/1.1 000 Huh"),
        (b"\x15\x03\x01\0\x02\x02\x46", "it speaks TLS, so its URL begins with https://"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "more than 100 headers"),
    ],
    ids=["SSH", "HTML", "HTTP/2", "another version", "no status", "TLS", "headers"],
)
def test_what_does_not_speak_http_is_asked_once(data: bytes, said: str) -> None:
    """It is at the wrong port, and will be."""
    error, sent = outcome(answers(data))

    assert (type(error), error.retriable, sent) == (EngineUnavailable, False, 1)
    assert said in error.message


@pytest.mark.parametrize("data", [b"H", b"HTT", b"HTTP/1.1", b"HTTP/1.1 2"])
def test_a_first_line_that_was_cut_may_be_whole_the_next_time(data: bytes) -> None:
    """A server that dies at that moment speaks HTTP all the same."""
    error, sent = outcome(answers(data))

    assert (type(error), error.retriable, sent) == (EngineUnavailable, True, TRIES)
    assert error.message.endswith("the connection was closed in the midst of its first line")


@resets
def test_a_certificate_and_a_plain_server_say_what_to_do(certificate: Certificate) -> None:
    """In the adapter's own names."""

    def refuse(sock: socket.socket) -> None:
        if sock.recv(65536):
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    told = []
    with certificate.front(9) as front, Peer(refuse) as plain:
        for peer in (front, plain):
            with VllmHttpAdapter(peer.url("https"), retry=QUICKLY) as adapter:
                adapter._version._known = "0"
                error, _ = failure(adapter.submit(a_task()))
                told.append(error.message)
                assert (type(error), error.retriable) == (EngineUnavailable, False)

    assert told[0].endswith("is named by verify=<path to its file>")
    assert told[1].endswith("its URL begins with http://")


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "xn--\u00e4.invalid", "*.invalid"])
def test_a_host_that_can_be_none_is_refused(host: str) -> None:
    """At the latest when it is looked up."""
    with pytest.raises(InvalidRequest, match="base_url"):  # noqa: SIM117
        with VllmHttpAdapter(f"http://{host}:8000", retry=QUICKLY) as adapter:
            adapter.submit(a_task()).result(timeout=SOON)


# Content codings and types.


@pytest.mark.parametrize(
    "name", ["none", "NONE", "utf-8", "binary", "chunked", "aws-chunked, none"]
)
def test_what_is_no_coding_hides_no_answer(name: str) -> None:
    """Only the codings that there are say something of the body."""
    assert text_of(ok(WHOLE, f"content-encoding: {name}")) == "a"
    assert text_of(ok(gzip.compress(WHOLE), f"content-encoding: {name}, gzip")) == "a"


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", WHOLE), ("deflate", WHOLE), ("gzip", gzip.compress(WHOLE)[:10] + b"\xff" * 9)],
    ids=["plain as gzip", "plain as deflate", "only the head is gzip's"],
)
def test_a_body_that_is_not_what_it_is_coded_as_is_garbage(coding: str, body: bytes) -> None:
    """Who compressed it so will do it again."""
    error, sent = outcome(ok(body, f"content-encoding: {coding}"))

    assert (type(error), error.retriable, sent) == (StreamingError, False, 1)
    assert error.message.startswith("engine sent a body that is not what it is coded as: ")


@pytest.mark.parametrize("rest", [b"", b"\0" * 8, b"502 Bad Gateway"])
def test_a_compressed_body_that_turns_bad_is_tried_again(rest: bytes) -> None:
    """What came of it was right; it was cut, or somebody put words behind it."""
    cut = zlib.compress(b": hi\n\n" * 100)[:-6]
    error, sent = outcome(ok(cut + rest, "content-encoding: deflate"))

    assert (type(error), error.retriable, sent) == (StreamingError, True, TRIES)


def test_an_answer_without_a_type_is_garbage_unless_its_headers_were_cut() -> None:
    """Without a body that may be so."""
    odd, sent = outcome(ok(WHOLE, kind=None))
    cut, again = outcome(answers(b"HTTP/1.1 200 OK\r\nserver: uv"))

    assert (odd.retriable, sent) == (False, 1)
    assert (cut.retriable, again) == (True, TRIES)
