"""Rows that this package once got wrong: tokens lost with a fault in the same read, ends missed."""

from __future__ import annotations

import gzip
import zlib

from decoding import DONE
from faults.row import (
    AFTER,
    ALL_ALONG,
    CUT,
    DOWN,
    END,
    HEADERS,
    INVALID,
    MIDDLE,
    NO_CONTENT,
    NO_DONE,
    Row,
    Script,
)
from faults.scripts import AB, BODY, CHUNKED, HEAD, STATUS_LINE, STOP, TYPE, A, B, coded
from support import LIMIT

from vllm_http.testing import Cut, Done, Event, Finish, Headers, Raw, Wait, WireBytes


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


JUNK = b"what is this\r\n"
TOO_LONG = b"1\r\nxyz\r\n"
GZIP_HEAD = STATUS_LINE + TYPE + b"content-encoding: gzip\r\n" + CHUNKED + b"\r\n"
_zipper = zlib.compressobj(wbits=31)
OPEN = _zipper.compress(A + B) + _zipper.flush(zlib.Z_SYNC_FLUSH)
_zipper = zlib.compressobj(wbits=31)
FIRST = _zipper.compress(A + B + STOP) + _zipper.flush(zlib.Z_SYNC_FLUSH)
LAST = _zipper.flush()
LATE_END: Script = [
    WireBytes(GZIP_HEAD + chunk(FIRST)),
    Wait(LIMIT / 3),
    WireBytes(chunk(LAST) + b"0\r\n\r\n"),
]
MEMBERS = [gzip.compress(data) for data in (A, B, STOP + DONE)]
BAD_CRC = gzip.compress(BODY)[:-8] + bytes(8)
LENGTH = b"content-length: %d\r\n\r\n" % len(A + B + STOP)
TWO_LENGTHS = b"content-length: 5\r\ncontent-length: 7\r\n\r\n"
BESIDE = Event(
    {
        "choices": [{"index": 0, "text": "", "finish_reason": "error"}],
        "error": {"message": "Bad day", "code": 502},
    }
)
PLAIN_ERROR = Raw(b'{"error": {"message": "Bad day", "code": 400}}')
FIN = Cut("fin")

# fmt: off
ROWS = [
    # What is refused takes nothing with it that came in the same read.
    Row("no chunk size, one packet", MIDDLE, [WireBytes(HEAD + chunk(A) + chunk(B) + JUNK)],
        CUT, "ab"),
    Row("no chunk size, one packet", AFTER, [WireBytes(HEAD + chunk(BODY) + JUNK)], END, "ab"),
    Row("a chunk beyond its size, one packet", MIDDLE,
        [WireBytes(HEAD + chunk(A) + chunk(B) + TOO_LONG)], CUT, "ab"),
    Row("gzip that turns bad", MIDDLE, coded("gzip", OPEN + b"\xff" * 99), CUT, "ab"),
    Row("gzip with a wrong CRC", AFTER, coded("gzip", BAD_CRC), END, "ab"),
    # A gzip body may have many members.
    Row("gzip, each event a member", ALL_ALONG, coded("gzip", *MEMBERS), END, "ab"),
    Row("gzip, members in one piece", ALL_ALONG, coded("gzip", b"".join(MEMBERS)), END, "ab"),
    # An end is an end also where the last read holds nothing else.
    Row("no [DONE], gzip", NO_DONE, LATE_END, CUT, "ab", waits=LIMIT / 3),
    Row("no [DONE], content-length", NO_DONE,
        [WireBytes(STATUS_LINE + TYPE + LENGTH + A + B + STOP)], CUT, "ab"),
    # The engine's headers are not the caller's fault.
    Row("two content-lengths", HEADERS, [WireBytes(STATUS_LINE + TYPE + TWO_LENGTHS + BODY), FIN],
        DOWN, sent=3),
    # Errors as gateways put them into a stream.
    Row("error beside choices", NO_CONTENT, [BESIDE, Done()], DOWN, sent=3, status=502),
    Row("error beside choices", MIDDLE, [*AB, BESIDE, Done()], DOWN, "ab", status=502),
    Row("finish_reason error", MIDDLE, [*AB, Finish("error"), Done()], CUT, "ab"),
    Row("error without SSE", NO_CONTENT, [Headers(), PLAIN_ERROR], INVALID, status=400,
        says="Bad day"),
    Row("error without SSE", MIDDLE, [*AB, PLAIN_ERROR], DOWN, "ab", status=400,
        says="Bad day"),
]
# fmt: on
