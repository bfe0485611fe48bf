"""Rows: an accepted stream that goes silent, and the clock that ends it."""

from __future__ import annotations

from decoding import delta, text
from faults.row import AFTER, END, MIDDLE, NO_CONTENT, NO_DONE, SILENT, STALLED, Row
from faults.scripts import AB, ALL_BUT_DONE, COMMENTS, WHOLE, chunked
from support import LIMIT, Drip

from vllm_http.testing import Done, Headers, Raw, Role, Stall, Text, Wait, WireBytes


BEGUN, SILENCE, WAIT, TOO_LONG = Headers(), Stall(), Wait(LIMIT / 3), Wait(LIMIT * 3)
HALF_EVENT = Raw(b'data: {"choices": [')
HALF_CHUNK = WireBytes(b"40\r\ndata: {")
HALF_ZERO = WireBytes(b"0\r\n")
HALF_SIZE = WireBytes(b"4")
EMPTY_EVENTS = Drip(chunked(text("")).removesuffix(b"0\r\n\r\n"))
ROLES = Drip(chunked(delta(role="assistant", content="")).removesuffix(b"0\r\n\r\n"))
STEADILY = [one for letter in "abcd" for one in (WAIT, Text(letter))]

# fmt: off
ROWS = [
    #   fault                       phase       what the engine does                what is seen
    Row("200, then silence",        NO_CONTENT, [BEGUN, SILENCE],                   SILENT),
    Row("silence",                  MIDDLE,     [*AB, SILENCE],                     STALLED, "ab"),
    Row("silence",                  NO_DONE,    [*ALL_BUT_DONE, SILENCE],           STALLED, "ab"),
    Row("silence",                  AFTER,      [*WHOLE, SILENCE],                  END, "ab"),
    Row("comments for ever",        NO_CONTENT, [BEGUN, COMMENTS],                  SILENT),
    Row("comments for ever",        MIDDLE,     [*AB, COMMENTS],                    STALLED, "ab"),
    Row("comments for ever",        NO_DONE,    [*ALL_BUT_DONE, COMMENTS],          STALLED, "ab"),
    Row("comments for ever",        AFTER,      [*WHOLE, COMMENTS],                 END, "ab"),
    Row("silence in an event",      NO_CONTENT, [HALF_EVENT, SILENCE],              SILENT),
    Row("silence in an event",      MIDDLE,     [*AB, HALF_EVENT, SILENCE],         STALLED, "ab"),
    Row("silence in a chunk",       NO_CONTENT, [BEGUN, HALF_CHUNK, SILENCE],       SILENT),
    Row("silence in a chunk",       MIDDLE,     [*AB, HALF_CHUNK, SILENCE],         STALLED, "ab"),
    Row("silence in a chunk size",  MIDDLE,     [*AB, HALF_SIZE, SILENCE],          STALLED, "ab"),
    Row("silence in the zero chunk", AFTER,     [*WHOLE, HALF_ZERO, SILENCE],       END, "ab"),
    Row("no text for ever",         NO_CONTENT, [BEGUN, EMPTY_EVENTS],              SILENT),
    Row("no text for ever",         MIDDLE,     [*AB, EMPTY_EVENTS],                STALLED, "ab"),
    Row("role, then silence",       NO_CONTENT, [Role(), SILENCE],
                                                SILENT, chat=True),
    Row("role, then comments",      NO_CONTENT, [Role(), COMMENTS],
                                                SILENT, chat=True),
    Row("roles for ever",           NO_CONTENT, [BEGUN, ROLES],
                                                SILENT, chat=True),
    Row("late, beyond the clock",   NO_CONTENT, [BEGUN, TOO_LONG, *WHOLE],          SILENT),
    Row("late, beyond the clock",   MIDDLE,     [*AB, TOO_LONG, Text("c")],         STALLED, "ab"),
    Row("late, within the clock",   NO_CONTENT, [BEGUN, WAIT, *WHOLE],
                                                END, "ab", waits=LIMIT / 3),
    Row("late, within the clock",   MIDDLE,     [*STEADILY, *WHOLE[2:]],
                                                END, "abcd", waits=LIMIT / 3 * 4),
    Row("late, within the clock",   NO_DONE,    [*ALL_BUT_DONE, WAIT, Done()],
                                                END, "ab", waits=LIMIT / 3),
]
# fmt: on
