"""Chunked bodies: http.client's data, however the wire is cut, and never a false end."""

from __future__ import annotations

import http.client
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import (
    LARGE_STREAMS,
    SMALL_STREAMS,
    STREAMS,
    capture,
    cut,
    cuts,
    halves,
    read_head,
    single_bytes,
)

from vllm_http._chunked import BulkResponse, ChunkedBody


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

sizes = st.sampled_from(["{:x}", "{:X}", "00{:x}", "{:x} ", "{:x}\t", "{:x};a=b", '{:x} ; q="; z"'])
line_ends = st.sampled_from([b"\r\n", b"\n"])
trailers = st.lists(st.sampled_from([b"Digest: 1", b"x", b"X-Y: \xff"]), max_size=3)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and one of the many ways in which it may be chunked."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    wire = b""
    for chunk in chunks:
        size = draw(sizes).format(len(chunk)).encode()
        wire += size + draw(line_ends) + chunk + draw(line_ends)
    wire += draw(st.sampled_from([b"0", b"000", b"0;last"])) + draw(line_ends)
    for trailer in draw(trailers):
        wire += trailer + draw(line_ends)
    return b"".join(chunks), wire + draw(line_ends)


def fed(pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    """The data in the pieces, whether they hold the end, and whether there is more behind it."""
    body = ChunkedBody()
    data = b"".join([body.feed(piece) for piece in pieces])
    if body.failure is not None:
        raise body.failure
    return data, body.ended, body.surplus


def drained(response: BulkResponse) -> list[bytes]:
    """All that `read1` gives before its b""."""
    return list(iter(response.read1, b""))


# What is a chunked body.


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_body_is_read_as_http_client_reads_it(name: str) -> None:
    """Every recorded stream gives the data that the standard library finds in it."""
    recorded = capture(name)

    assert fed([recorded.wire]) == (recorded.body, recorded.whole, False)
    assert fed(single_bytes(recorded.wire)) == (recorded.body, recorded.whole, False)


@pytest.mark.parametrize("name", SMALL_STREAMS)
def test_recorded_body_may_be_cut_anywhere(name: str) -> None:
    """A body in two pieces gives the same data, wherever the cut is."""
    recorded = capture(name)

    for pieces in halves(recorded.wire):
        assert fed(pieces) == (recorded.body, recorded.whole, False)


@pytest.mark.parametrize("name", ["B-overload-1", "B-kill9-enginecore-stream", "G-preempt-0"])
@given(data=st.data())
def test_large_recorded_body_may_be_cut_at_random(name: str, data: st.DataObject) -> None:
    """A large body in random pieces gives the same data."""
    recorded = capture(name)

    assert name in LARGE_STREAMS
    assert fed(data.draw(cuts(recorded.wire))) == (recorded.body, recorded.whole, False)


@given(example=chunked(), data=st.data())
def test_any_chunked_body_is_read(example: tuple[bytes, bytes], data: st.DataObject) -> None:
    """Extensions, trailers, zeros, capitals and bare line feeds are all read, cut anywhere."""
    body, wire = example

    assert fed(data.draw(cuts(wire))) == (body, True, False)
    assert fed(single_bytes(wire)) == (body, True, False)


@given(example=chunked())
def test_a_cut_body_never_seems_whole(example: tuple[bytes, bytes]) -> None:
    """However much of a body has come, it has not ended before its last byte."""
    body, wire = example

    for end in range(len(wire)):
        data, ended, surplus = fed([wire[:end]])
        assert (ended, surplus) == (False, False)
        assert body.startswith(data)


@given(example=chunked(), surplus=st.binary(min_size=1, max_size=9), data=st.data())
def test_bytes_after_the_end_are_no_data(
    example: tuple[bytes, bytes], surplus: bytes, data: st.DataObject
) -> None:
    """What follows the end is noticed and never taken for data."""
    body, wire = example

    assert fed(data.draw(cuts(wire + surplus))) == (body, True, True)
    assert fed([wire, surplus]) == (body, True, True)


# What is none.


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"-5", b"+5", b"0x5", b"1_0", b"g", b" 5", b"5 5", b"\xd9\xa3", b"5\r", b"5,5"),
        *(b"f" * 16, b"<html>", b": keep-alive", b"HTTP/1.1 200 OK"),
    ],
)
@pytest.mark.parametrize("first", [b"", b"3\r\nabc\r\n"], ids=["first", "second"])
def test_a_bad_size_is_refused(line: bytes, first: bytes) -> None:
    """A size is one to 15 hex digits; signs, prefixes and separators that int() takes are none."""
    for pieces in ([first + line + b"\r\n"], single_bytes(first + line + b"\r\n")):
        with pytest.raises(http.client.HTTPException, match="not a chunk size"):
            fed(pieces)


def test_data_before_a_bad_size_is_given() -> None:
    """Once: what is refused takes nothing with it, and nothing follows it."""
    body = ChunkedBody()

    assert body.feed(b"3\r\nabc\r\nnonsense\r\n") == b"abc"

    assert body.failure is not None
    assert body.feed(b"3\r\nabc\r\n") == b""


def test_a_huge_size_costs_nothing() -> None:
    """A size is a promise, not memory: data comes as it arrives, and the end never does."""
    assert fed([b"f" * 15 + b"\r\n", b"abc", b"0\r\n\r\n"]) == (b"abc0\r\n\r\n", False, False)


def test_a_chunk_longer_than_its_size_is_refused() -> None:
    """A chunk that does not end where its size says is no chunk."""
    for pieces in halves(b"3\r\nabcd\r\n"):
        with pytest.raises(http.client.HTTPException, match="longer than its size"):
            fed(pieces)


@pytest.mark.parametrize("start", [b"5;", b"0\r\n"], ids=["size", "trailer"])
def test_a_line_has_a_limit(start: bytes) -> None:
    """A line that does not end is given up at 8 KiB, in one piece or byte by byte."""
    fed([start + b"x" * 8000])

    for pieces in ([start + b"x" * 8193 + b"\r\n"], single_bytes(start + b"x" * 8193)):
        with pytest.raises(http.client.LineTooLong):
            fed(pieces)


def test_trailers_have_a_limit() -> None:
    """A hundred trailers are read, one more is too many."""
    assert fed([b"0\r\n" + b"a: b\r\n" * 100 + b"\r\n"]) == (b"", True, False)

    with pytest.raises(http.client.HTTPException, match="trailers"):
        fed([b"0\r\n" + b"a: b\r\n" * 101 + b"\r\n"])


# The response.


def test_read1_takes_all_chunks_that_have_arrived() -> None:
    """Chunks that came together are one read; an end that came with them closes at once."""
    response = read_head(BulkResponse, [HEAD, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"])

    assert response.read1() == b"abcde"
    assert response.isclosed()
    assert response.read1() == b""


def test_read1_closes_when_the_end_comes_later() -> None:
    """Data does not wait for the end."""
    response = read_head(BulkResponse, [HEAD, b"3\r\nabc\r\n", b"0\r\n\r\n"])

    assert response.read1() == b"abc"
    assert not response.isclosed()
    assert response.read1() == b""
    assert response.isclosed()


@pytest.mark.parametrize("status", [100, 102, 103])
def test_interim_answers_are_skipped(status: int) -> None:
    """Whoever read one as the answer would leave the real one to the connection's next user."""
    interim = b"HTTP/1.1 %d Wait\r\nlink: </x>\r\n\r\n" % status
    response = read_head(BulkResponse, [interim * 2 + HEAD, b"1\r\na\r\n0\r\n\r\n"])

    assert response.status == 200
    assert response.read1() == b"a"


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_response_is_read_whole_or_not_at_all(name: str) -> None:
    """`read1` gives all of a recorded body, and a cut one ends in an error."""
    recorded = capture(name)
    response = read_head(BulkResponse, [HEAD + recorded.wire])
    data = b""

    try:
        while piece := response.read1():
            data += piece
    except http.client.IncompleteRead:
        assert not recorded.whole
    else:
        assert recorded.whole
    assert data == recorded.body


def test_read1_never_returns_nothing_before_the_end() -> None:
    """Pieces that hold no data are read over: b"" means the end and nothing else."""
    wire = b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nDigest: 1\r\n\r\n"

    assert drained(read_head(BulkResponse, [HEAD, *single_bytes(wire)])) == [
        bytes([byte]) for byte in b"abcde"
    ]


def test_read1_waits_for_the_first_chunk_only() -> None:
    """On a real socket, what has arrived is given while the rest is still to come."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        far.sendall(HEAD + b"3\r\nabc\r\n2\r\nd")
        response = BulkResponse(near)
        with response:
            response.begin()
            assert response.read1() == b"abcd"
            far.sendall(b"e\r\n0\r\n\r\n")
            assert response.read1() == b"e"
            assert response.read1() == b""


def test_a_connection_that_ends_early_is_an_error() -> None:
    """EOF before the last chunk is no end of the body."""
    response = read_head(BulkResponse, [HEAD, b"3\r\nabc\r\n"])

    assert response.read1() == b"abc"
    with pytest.raises(http.client.IncompleteRead):
        response.read1()


def test_surplus_bytes_spoil_the_connection_after_the_data() -> None:
    """The data comes first; then the answer that nobody asked for is an error."""
    response = read_head(BulkResponse, [HEAD, b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"])

    assert response.read1() == b"abc"
    with pytest.raises(http.client.HTTPException, match="after the end"):
        response.read1()


def test_bad_size_spoils_the_connection_after_the_data() -> None:
    """Whoever waits for nothing is told at once that there is more to be told of."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(HEAD + b"3\r\nabc\r\nnonsense\r\n")
        response = BulkResponse(near)
        with response:
            response.begin()
            assert response.read1() == b"abc"
            assert response.holds_bytes()
            response.dont_block()
            with pytest.raises(http.client.HTTPException, match="not a chunk size"):
                response.read_ready()


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"],
    ids=["content-length", "close-delimited"],
)
def test_other_bodies_are_left_to_http_client(head: bytes) -> None:
    """A body that is not chunked is read as ever."""
    assert b"".join(drained(read_head(BulkResponse, [head, *cut(b"3\r\nabc", [2])]))) == b"3\r\nabc"


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_read_over(status: bytes) -> None:
    """A gateway's interim answers, one or several, are not taken for the answer."""
    interim = b"HTTP/1.1 " + status + b"\r\nLink: x\r\n\r\n"
    response = read_head(BulkResponse, [interim * 2 + HEAD, b"3\r\nabc\r\n0\r\n\r\n"])

    assert (response.status, response.getheader("Link")) == (200, None)
    assert drained(response) == [b"abc"]


def test_a_switch_of_protocols_ends_the_connection() -> None:
    """Nobody asked for a 101; what follows it is no HTTP."""
    response = read_head(BulkResponse, [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"\x00"])

    assert (response.status, response.will_close) == (101, True)
