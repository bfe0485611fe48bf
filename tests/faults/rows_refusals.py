"""Rows: a status that is not 200, or a 200 that is no event stream."""

from __future__ import annotations

import gzip

from faults.row import (
    CUT,
    DOWN,
    FULL,
    GARBAGE,
    INSTEAD,
    INVALID,
    NO_ACCESS,
    NOT_FOUND,
    UNABLE,
    Row,
    Sees,
)
from faults.scripts import BODY, CHUNKED, STATUS_LINE, FullUntil, chunked, coded
from support import Drip

from vllm_http.testing import Cut, Headers, Raw, Stall, Status, WireBytes


#   status  what the caller sees  requests
STATUSES: list[tuple[int, Sees, int]] = [
    (400,   INVALID,              1),
    (401,   NO_ACCESS,            1),
    (403,   NO_ACCESS,            1),
    (404,   NOT_FOUND,            1),
    (409,   FULL,                 1),
    (422,   INVALID,              1),
    (429,   FULL,                 3),
    (500,   DOWN,          2),
    (501,   UNABLE,            1),
    (502,   DOWN,          3),
    (503,   DOWN,          3),
    (504,   DOWN,          3),
]  # fmt: skip

#    body                what is sent                                        what the error tells
BODIES = [
    ("JSON",             {"error": {"message": "Not now", "param": None}},   "Not now"),
    ("a text in JSON",   {"error": "Unauthorized"},                          "Unauthorized"),
    ("a detail in JSON", {"detail": "Not Found"},                            "Not Found"),
    ("HTML",             b"<html>Bad day</html>",                            "Bad day"),
    ("an empty body",    None,                                               ""),
]  # fmt: skip

REFUSALS = [
    Row(f"{code} with {body}", INSTEAD, [Status(code, data)], sees, sent=sent, status=code,
        says=told or f"engine answered {code}")
    for code, sees, sent in STATUSES
    for body, data, told in BODIES
]  # fmt: skip


def full_for(seconds: object) -> list[Status]:
    """A refusal that asks to come back after that many seconds."""
    return [Status(429, headers={"retry-after": f"{seconds}"})]


MINUTE = range(60_000, 60_001)
ABOUT_A_MINUTE = range(55_000, 60_001)  # a date has whole seconds
NOT_AT_ALL = range(1)
SECOND = range(1000, 1001)
ELSEWHERE = {"location": "http://elsewhere.invalid/v1"}
LONG = {"content-length": "1000"}
GZIP = {"content-encoding": "gzip"}
LETTERS = Drip(b"5\r\nxxxxx\r\n")
EXTENSION = Drip(b";")
PAGE = Raw(b"<html>Bad day")
NO_TYPE = STATUS_LINE + CHUNKED + b"\r\n" + chunked(BODY)
RST, FIN = Cut("rst"), Cut("fin")

# fmt: off
ROWS = [
    *REFUSALS,
    #   fault                       phase       what the engine does                what is seen
    Row("Retry-After: 0",           INSTEAD,    full_for(0),
        FULL, sent=3, status=429, retry_after_ms=NOT_AT_ALL),
    Row("Retry-After: 1",           INSTEAD,    full_for(1),
        FULL, sent=3, status=429, retry_after_ms=SECOND, waits=2.0),
    Row("Retry-After: 60, too long", INSTEAD, full_for(60),
                                                FULL, status=429, retry_after_ms=MINUTE),
    Row("Retry-After in a minute",  INSTEAD,    [FullUntil(60)],
                                                FULL, status=429, retry_after_ms=ABOUT_A_MINUTE),
    Row("Retry-After a minute ago", INSTEAD,    [FullUntil(-60)],
        FULL, sent=3, status=429, retry_after_ms=NOT_AT_ALL),
    Row("Retry-After: soon",        INSTEAD,    full_for("soon"),
                                                FULL, sent=3, status=429),

    Row("301",                      INSTEAD,    [Status(301, headers=ELSEWHERE)],
                                                UNABLE, status=301, says="elsewhere.invalid"),
    Row("302 with HTML",            INSTEAD,    [Status(302, b"<html>", ELSEWHERE)],
                                                UNABLE, status=302, says="elsewhere.invalid"),
    Row("307",                      INSTEAD,    [Status(307, headers=ELSEWHERE)],
                                                UNABLE, status=307, says="elsewhere.invalid"),
    Row("308 to nowhere",           INSTEAD,    [Status(308)],
                                                UNABLE, status=308),
    Row("204",                      INSTEAD,    [Status(204)],
                                                UNABLE, status=204),

    # What it means is known without its words, which have a second; the clocks are shorter here.
    Row("503, its body stalls",     INSTEAD,    [Headers(503), PAGE, Stall()],
                                                DOWN, sent=3, status=503, says="day", waits=3.0),
    Row("503, its body has no end", INSTEAD,    [Headers(503), LETTERS],
                                                DOWN, sent=3, status=503, says="xxx", waits=3.0),
    Row("400, its body never comes", INSTEAD, [Headers(400), Stall()],
                                                INVALID, status=400, waits=1.0),
    Row("400, a chunk's size drips", INSTEAD, [Headers(400), EXTENSION],
                                                INVALID, status=400, waits=1.0),
    Row("503, its body is too large", INSTEAD, [Headers(503), Raw(b"x" * 10**7)],
                                                DOWN, sent=3, status=503),
    Row("503, its body is cut by RST", INSTEAD, [Headers(503), PAGE, RST],
                                                DOWN, sent=3, status=503),
    Row("503, its body is cut by FIN", INSTEAD, [Headers(503), PAGE, FIN],
                                                DOWN, sent=3, status=503, says="Bad day"),
    Row("503, its body is gzip",    INSTEAD,    [Status(503, gzip.compress(b"Bad day"), GZIP)],
                                                DOWN, sent=3, status=503, says="Bad day"),

    # Garbage will be garbage the next time.
    Row("200 with HTML",            INSTEAD,    [Status(200, b"<html>Bad day")],
                                                GARBAGE, says="Bad day"),
    Row("200 with HTML, cut by FIN", INSTEAD, [Status(200, b"<html>Bad day", LONG), FIN],
                                                GARBAGE, says="Bad day"),
    Row("200 with HTML, stalling",  INSTEAD,    [Status(200, b"<html>Bad day", LONG), Stall()],
                                                GARBAGE, says="Bad day", waits=1.0),
    Row("200 with JSON",            INSTEAD,    [Status(200, {"choices": []})],
                                                GARBAGE),
    Row("200 with an error in JSON", INSTEAD, [Status(200, {"error": "Bad day"})],
                                                GARBAGE, says="Bad day"),
    Row("200 with an empty body",   INSTEAD,    [Status(200)],                      CUT, sent=3),
    Row("200 in br",                INSTEAD,    coded("br", BODY),
                                                GARBAGE, says="br"),
    Row("200 in zstd",              INSTEAD,    coded("zstd", BODY),
                                                GARBAGE, says="zstd"),
    Row("200 in gzip, then gzip",   INSTEAD,    coded("gzip, gzip", BODY),
                                                GARBAGE, says="gzip, gzip"),
    Row("200 without a content type", INSTEAD,  [WireBytes(NO_TYPE)],               GARBAGE),
]
# fmt: on
