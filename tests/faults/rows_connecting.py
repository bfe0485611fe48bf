"""Rows: from the connect to the last header."""

from __future__ import annotations

from faults.row import (
    CONNECT,
    CUT,
    DOWN,
    END,
    GARBAGE,
    HEADERS,
    NO_CONNECTION,
    NO_HEADERS,
    SILENT,
    UNABLE,
    Row,
)
from faults.scripts import (
    BODY,
    HEAD,
    STATUS_LINE,
    TYPE,
    WHOLE,
    chunked,
    sent_one_by_one,
)
from support import LIMIT, Drip

from vllm_http.testing import Cut, Stall, Step, Wait, WireBytes


RST, FIN = Cut("rst"), Cut("fin")
HALF_LINE = WireBytes(b"HTTP/1.1 20")
LINE = WireBytes(STATUS_LINE)
HALF_HEADER = WireBytes(STATUS_LINE + b"server: uvic")
HALF_TYPE = WireBytes(STATUS_LINE + TYPE)
OTHER = WireBytes(b"HTTP/1.1 503 Service Unavailable\r\nserver: uvic")
LONG_LINE = WireBytes(STATUS_LINE + b"x: " + b"y" * 20_000_000)
MANY_LINES = WireBytes(STATUS_LINE + b"x: y\r\n" * 200)
DRIPPING = Drip(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n")
EARLY_HINTS = WireBytes(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
CONTINUE = WireBytes(b"HTTP/1.1 100 Continue\r\n\r\n")
SSH = WireBytes(b"SSH-2.0-OpenSSH_9.2\r\n")
HTTP_2 = WireBytes(b"\0\0\x12\4\0\0\0\0\0")
NO_HEADER = WireBytes(STATUS_LINE + b"this is no header\r\n" + TYPE + b"\r\n" + BODY)
NO_STATUS = WireBytes(b"HTTP/1.1 200200 OK\r\n\r\n")
WAIT = Wait(LIMIT / 3)
SLOWLY: list[Step] = [LINE, WAIT, WireBytes(HEAD[len(STATUS_LINE) :] + chunked(BODY))]

# fmt: off
ROWS = [
    #   fault                       phase       what the engine does                what is seen
    Row("refused",                  CONNECT,    [],
                                                DOWN, sent=0, at="closed port"),
    Row("no answer to SYN",         CONNECT,    [],
        NO_CONNECTION, sent=0, at="deaf port", waits=3 * LIMIT),
    Row("no TLS hello",             CONNECT,    [],
        NO_CONNECTION, sent=0, at="silent TLS", waits=3 * LIMIT),
    Row("accepted, then silence",   CONNECT,    [],
                                                SILENT, sent=0, at="silent port"),

    Row("silence",                  NO_HEADERS, [Stall()],                          SILENT),
    Row("RST",                      NO_HEADERS, [RST],                              DOWN, sent=3),
    Row("FIN",                      NO_HEADERS, [FIN],                              DOWN, sent=3),
    Row("not HTTP",                 NO_HEADERS, [SSH, FIN],                         UNABLE),
    Row("HTTP/2",                   NO_HEADERS, [HTTP_2, FIN],                      UNABLE),
    Row("late, within the clock",   NO_HEADERS, [WAIT, *WHOLE],
                                                END, "ab", waits=LIMIT / 3),
    Row("100 Continue",             NO_HEADERS, [CONTINUE, *WHOLE],                 END, "ab"),
    Row("103 Early Hints",          NO_HEADERS, [EARLY_HINTS, *WHOLE],              END, "ab"),

    Row("kept connection: RST",     NO_HEADERS, [RST],
                                                END, "ab", sent=2, then=WHOLE, kept=True),
    Row("kept connection: FIN",     NO_HEADERS, [FIN],
                                                END, "ab", sent=2, then=WHOLE, kept=True),
    Row("kept connections: RST",    NO_HEADERS, [RST],
                                                DOWN, sent=4, kept=True),
    Row("kept connection: silence", NO_HEADERS, [Stall()],
                                                SILENT, kept=True),
    Row("kept connection: dropped while idle", CONNECT, WHOLE,
                                                END, "ab", kept=True, at="restarted engine"),

    Row("slow, within the clock",   HEADERS,    SLOWLY,
                                                END, "ab", waits=LIMIT / 3),
    Row("slow for ever",            HEADERS,    [DRIPPING],                         SILENT),
    Row("silence",                  HEADERS,    [HALF_HEADER, Stall()],             SILENT),
    Row("RST, half a status line",  HEADERS,    [HALF_LINE, RST],                   DOWN, sent=3),
    Row("RST, status line",         HEADERS,    [LINE, RST],                        DOWN, sent=3),
    Row("RST, half a header",       HEADERS,    [HALF_HEADER, RST],                 DOWN, sent=3),
    Row("FIN, half a status line",  HEADERS,    [HALF_LINE, FIN],                   DOWN, sent=3),
    # Python's http.client takes headers that a FIN ends for whole ones.
    Row("FIN, status line",         HEADERS,    [LINE, FIN],                        CUT, sent=3),
    Row("FIN, half a header",       HEADERS,    [HALF_HEADER, FIN],                 CUT, sent=3),
    Row("FIN, content type",        HEADERS,    [HALF_TYPE, FIN],
                                                CUT, sent=3, started=True),
    Row("FIN, headers of a 503",    HEADERS,    [OTHER, FIN],
                                                DOWN, sent=3, status=503),
    Row("RST, headers of a 503",    HEADERS,    [OTHER, RST],                       DOWN, sent=3),
    Row("a line of 20 MB",          HEADERS,    [LONG_LINE, Stall()],               UNABLE),
    Row("200 lines",                HEADERS,    [MANY_LINES, Stall()],              UNABLE),
    Row("a line that is no header", HEADERS,    [NO_HEADER, FIN],                   GARBAGE),
    Row("a status of six digits",   HEADERS,    [NO_STATUS, FIN],                   UNABLE),
    Row("one byte at a time",       HEADERS,    sent_one_by_one(HEAD + chunked(BODY)),
                                                END, "ab"),
]
# fmt: on
