"""The body of an answer, read as it arrives: first by who waits, then by who never does."""

from __future__ import annotations

import gzip
import select
import socket
import zlib
from typing import NamedTuple

import pytest
import requests
from support import SOON

from vllm_http import StreamingError, _inflate
from vllm_http._connections import _Response
from vllm_http._transport_body import Body


DATA = b'data: {"text":"a"}\n\ndata: [DONE]\n\n'


class Form(NamedTuple):
    """A way to send the data."""

    head: bytes
    wire: bytes
    encoding: str = "identity"
    to_eof: bool = False


def chunked(data: bytes, size: int) -> bytes:
    """The data in chunks of that size."""
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


FORMS = {
    "chunked": Form(b"transfer-encoding: chunked", chunked(DATA, 19)),
    "length": Form(b"content-length: %d" % len(DATA), DATA),
    "eof": Form(b"connection: close", DATA, to_eof=True),
    "gzip": Form(b"transfer-encoding: chunked", chunked(gzip.compress(DATA), 19), "gzip"),
    "members": Form(
        b"transfer-encoding: chunked",
        chunked(gzip.compress(DATA[:20]) + gzip.compress(DATA[20:]), 19),
        "gzip",
    ),
    "deflate": Form(b"transfer-encoding: chunked", chunked(zlib.compress(DATA), 19), "deflate"),
}


class Ends:
    """A body and who sends it."""

    def __init__(self, form: Form) -> None:
        near, self.far = socket.socketpair()
        self.near = near
        near.settimeout(SOON)
        self.far.sendall(b"HTTP/1.1 200 OK\r\n" + form.head + b"\r\n\r\n")
        self._response = _Response(near, method="POST")
        self._response.begin()
        self.body = Body(requests.Response(), self._response, form.encoding)

    def close(self) -> None:
        """Close both ends."""
        self._response.close()
        self.far.close()
        self.near.close()

    def read_all(self) -> bytes:
        """What `read_ready` gives up to the end, waiting on the socket as the reader does."""
        data = b""
        while not self.body.ended:
            if not self.body.holds_bytes():
                assert select.select([self.near], [], [], SOON)[0], "nothing has come"
            piece = self.body.read_ready()
            if piece == b"":
                return data
            data += piece or b""
        return data


@pytest.mark.parametrize("name", FORMS)
def test_split_anywhere(name: str) -> None:
    """Whatever has come first, and whoever has read it, the data is the same."""
    form = FORMS[name]
    for position in range(1, len(form.wire)):
        ends = Ends(form)
        ends.far.sendall(form.wire[:position])
        ends.body.dont_block()
        first = ends.body.read_ready() or b""
        assert ends.body.read_ready() is None or ends.body.ended
        ends.far.sendall(form.wire[position:])
        if form.to_eof:
            ends.far.close()

        assert first + ends.read_all() == DATA, position
        ends.close()


@pytest.mark.parametrize("name", [name for name in FORMS if name != "eof"])
def test_cut_anywhere(name: str) -> None:
    """A connection that closes early is an error, after the data that came."""
    form = FORMS[name]
    for position in range(1, len(form.wire)):
        ends = Ends(form)
        ends.far.sendall(form.wire[:position])
        ends.far.close()
        ends.body.dont_block()

        with pytest.raises(StreamingError):
            ends.read_all()
        ends.close()


@pytest.mark.parametrize("name", FORMS)
def test_read_waits_and_read_ready_goes_on(name: str) -> None:
    """The worker reads the first piece, the reader all others."""
    form = FORMS[name]
    ends = Ends(form)
    ends.far.sendall(form.wire[:-3])
    first = ends.body.read()
    ends.body.dont_block()
    ends.far.sendall(form.wire[-3:])
    ends.far.close()

    assert first
    assert first + ends.read_all() == DATA
    ends.close()


COMPRESSED = ["gzip", "members", "deflate"]


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("most", [1, 7, len(DATA) - 1, len(DATA)])
def test_more_than_one_read_may_give(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    """What is inflated beyond that is given by later reads, though nothing more arrives."""
    monkeypatch.setattr(_inflate, "MOST", most)
    ends = Ends(FORMS[name])
    ends.far.sendall(FORMS[name].wire)
    first = ends.body.read()
    ends.body.dont_block()
    assert len(first) == most
    assert not ends.body.ended

    assert first + ends.read_all() == DATA
    assert ends.body.read_ready() == b""
    assert ends.body.ended
    ends.close()


@pytest.mark.parametrize("name", COMPRESSED)
def test_worker_takes_what_was_held(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It may need more than one read before there is content."""
    monkeypatch.setattr(_inflate, "MOST", 7)
    ends = Ends(FORMS[name])
    ends.far.sendall(FORMS[name].wire)

    assert b"".join(iter(ends.body.read, b"")) == DATA
    ends.close()


def test_length_that_was_read_whole_has_ended() -> None:
    """The worker may read all of it; then there is nothing to wait for."""
    ends = Ends(FORMS["length"])
    ends.far.sendall(FORMS["length"].wire)

    assert ends.body.read() == DATA

    assert ends.body.ended
    assert not ends.body.dont_block()
    assert ends.body.read_ready() == b""
    ends.close()


def test_data_before_garbage_in_gzip_is_given() -> None:
    """zlib keeps back what it had of a call that fails; the tokens in it are the caller's."""
    zipper = zlib.compressobj(wbits=31)
    good = zipper.compress(DATA) + zipper.flush(zlib.Z_SYNC_FLUSH)
    ends = Ends(FORMS["gzip"])
    ends.far.sendall(chunked(good + b"\xff" * 99, 10_000))

    assert ends.body.read() == DATA
    ends.body.dont_block()
    assert ends.body.holds_bytes()
    with pytest.raises(StreamingError):
        ends.body.read_ready()
    ends.close()


def test_garbage_in_gzip_is_a_streaming_error() -> None:
    """What cannot be inflated is the engine's fault, in our own words."""
    ends = Ends(FORMS["gzip"])
    ends.far.sendall(chunked(b"no gzip at all", 19))
    ends.body.dont_block()

    with pytest.raises(StreamingError):
        ends.read_all()
    ends.close()
