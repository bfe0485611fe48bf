"""Chunked and compressed bodies, and any bytes in their place: one result, however split."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple
from unittest import mock

from fuzz.feeding import noise, split_bodies, spoilt
from hypothesis import given
from hypothesis import strategies as st
from wire import SMALL_STREAMS, capture, single_bytes

from vllm_http import _inflate
from vllm_http._chunked import ChunkedBody
from vllm_http._inflate import Inflater


class Read(NamedTuple):
    """What comes out of a body, and how it ends."""

    data: bytes
    failure: str
    ended: bool = False
    surplus: bool = False


@st.composite
def compressed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Some data, and one of the ways to compress it: gzip or zlib, flushed here and there."""
    pieces = draw(st.lists(st.binary(max_size=60), max_size=6))
    members = draw(st.sampled_from([[31], [15], [31, 31], [31, 15, 31]]))
    wire = b""
    for window_bits in members:
        zipper = zlib.compressobj(draw(st.integers(0, 9)), wbits=window_bits)
        for piece in pieces:
            wire += zipper.compress(piece)
            wire += zipper.flush(draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_NO_FLUSH])))
        wire += zipper.flush()
    return b"".join(pieces) * len(members), wire


@st.composite
def deflated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Some data, and deflate of it with zlib's frame or without."""
    pieces = draw(st.lists(st.binary(max_size=60), max_size=6))
    level, bits = draw(st.integers(0, 9)), draw(st.sampled_from([-15, -9, 9, 15]))
    zipper = zlib.compressobj(level, wbits=bits, strategy=draw(st.integers(0, 4)))
    flush = draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_NO_FLUSH]))
    wire = b"".join(zipper.compress(piece) + zipper.flush(flush) for piece in pieces)
    return b"".join(pieces), wire + zipper.flush()


def in_chunks(data: bytes, size: int) -> bytes:
    """A whole chunked body."""
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


captured = st.sampled_from(SMALL_STREAMS).map(lambda name: capture(name).wire)
chunked = captured.flatmap(spoilt) | noise | st.binary(max_size=40)
zipped = compressed().flatmap(lambda made: spoilt(made[1])) | st.binary(max_size=40)


def unchunked(pieces: Iterable[bytes]) -> Read:
    """What `ChunkedBody` makes of these pieces."""
    body = ChunkedBody()
    data = b"".join([body.feed(piece) for piece in pieces])
    return Read(data, repr(body.failure), body.ended, body.surplus)


def inflated(pieces: Iterable[bytes], encoding: str = "gzip") -> Read:
    """What `Inflater` makes of these pieces; its user stops at a failure."""
    body = Inflater(encoding)
    data = b""
    for piece in pieces:
        data += body.feed(piece)
        while body.failure is None and body.holds_bytes:
            data += body.feed(b"")
        if body.failure is not None:
            break
    return Read(data, repr(body.failure))


@given(split=split_bodies(chunked))
def test_chunks_are_the_same_however_split(split: tuple[bytes, list[bytes]]) -> None:
    """The data, the end and the failure of any bytes are those of the whole."""
    whole, pieces = split

    assert unchunked(pieces) == unchunked([whole])
    assert unchunked(single_bytes(whole)) == unchunked([whole])


@given(split=split_bodies(chunked))
def test_no_chunk_after_a_failure(split: tuple[bytes, list[bytes]]) -> None:
    """What ended or failed stays so."""
    body = ChunkedBody()
    for piece in split[1]:
        body.feed(piece)
    if body.ended or body.failure is not None:
        before = (body.ended, repr(body.failure))

        assert body.feed(b"\r\n1\r\na\r\n0\r\n\r\n") == b""
        assert (body.ended, repr(body.failure)) == before


@given(split=split_bodies(zipped))
def test_inflated_is_the_same_however_split(split: tuple[bytes, list[bytes]]) -> None:
    """All data before a failure is given, and whether there is one does not hang on the cuts."""
    whole, pieces = split

    assert inflated(pieces) == inflated([whole])
    assert inflated(single_bytes(whole)) == inflated([whole])


@given(split=split_bodies(zipped), most=st.integers(1, 70))
def test_inflated_is_the_same_in_pieces_of_any_size(
    split: tuple[bytes, list[bytes]], most: int
) -> None:
    """How much a call gives changes nothing of what comes out in the end, and of the failure."""
    whole, pieces = split
    with mock.patch.object(_inflate, "MOST", most):
        in_pieces = inflated(pieces)

    assert in_pieces == inflated([whole])


TURNS_BAD = bytes.fromhex("78019a700d0af8c00f00000000ffff000000ffff000000ffff000000ffff0300")


def test_data_before_a_failure_comes_out_with_little_room() -> None:
    """zlib had taken in the bytes of the last one and of the failure at once."""
    with mock.patch.object(_inflate, "MOST", 1):
        in_pieces = inflated([TURNS_BAD])

    assert in_pieces == inflated([TURNS_BAD])
    assert in_pieces.data == bytes.fromhex("90d6d6d6d6d6d6d6d60e")


@given(made=compressed(), size=st.integers(1, 30), split=st.data())
def test_compressed_chunks_come_out_whole(
    made: tuple[bytes, bytes], size: int, split: st.DataObject
) -> None:
    """Chunks of gzip or zlib, of one member or many, give the data that went in."""
    data, wire = made
    _, pieces = split.draw(split_bodies(st.just(in_chunks(wire, size))))
    outer = ChunkedBody()

    assert inflated(map(outer.feed, pieces)) == Read(data, "None")
    assert outer.ended


@given(made=compressed(), split=st.data())
def test_compressed_data_that_is_cut_is_a_beginning(
    made: tuple[bytes, bytes], split: st.DataObject
) -> None:
    """What has come of it is right, and no failure."""
    data, wire = made
    cut = split.draw(st.integers(0, len(wire)))

    read = inflated([wire[:cut]])

    assert read.failure == "None"
    assert data.startswith(read.data)


@given(made=deflated(), data=st.data())
def test_deflate_is_read_with_its_frame_or_without(
    made: tuple[bytes, bytes], data: st.DataObject
) -> None:
    """Whatever the level, the window and the split: its first two bytes tell which it is."""
    plain, wire = made
    at = data.draw(st.integers(0, len(wire)))

    assert inflated([wire[:at], wire[at:]], "deflate") == Read(plain, "None")
    assert inflated(single_bytes(wire), "deflate") == Read(plain, "None")
