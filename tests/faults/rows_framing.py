"""Rows: the same tokens in odd clothes, which change nothing; and bytes that are no tokens."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

from decoding import DONE, delta, event, text
from faults.row import AFTER, ALL_ALONG, CUT, END, GARBAGE, MIDDLE, NO_CONTENT, Row
from faults.scripts import (
    AB,
    BODY,
    CHUNKED,
    HEAD,
    STATUS_LINE,
    STOP,
    TYPE,
    WHOLE,
    A,
    B,
    Long,
    chunked,
    coded,
    raw,
    single,
    with_comments,
)

from vllm_http.testing import Cut, Finish, Headers, Raw, Stall, Step, Text, WireBytes


def of_length(said: object) -> list[Step]:
    """A whole answer whose content-length may be wrong."""
    return [WireBytes(STATUS_LINE + TYPE + f"content-length: {said}\r\n\r\n".encode() + BODY)]


def line(value: str) -> bytes:
    """An event that is this text."""
    return f"data: {value}\n\n".encode()


GZIPPED = gzip.compress(BODY)
BOM = b"\xef\xbb\xbf"
CRLF, CR = BODY.replace(b"\n", b"\r\n"), BODY.replace(b"\n", b"\r")
MIXED = A.replace(b"\n\n", b"\n\r\n") + B.replace(b"\n\n", b"\r\n\n") + STOP + DONE
WORDS = "aé€😀\u2028\u0085"
ACCENTS = b"".join(text(letter) for letter in WORDS) + STOP + DONE
SPACELESS = BODY.replace(b"data: ", b"data:")
MULTI_LINE = BODY.replace(b'"choices": ', b'"choices":\ndata: ')
MORE_FIELDS = b"".join(b"event: message\nid: 7\nretry: 10\nx: y\n" + e for e in (A, B, STOP, DONE))
UNKNOWN = event(new=[{}], choices=[{"index": 0, "text": "a", "new": {"x": [1]}}])
NULLS: dict[str, Any] = dict.fromkeys(("logprobs", "token_ids", "stop_reason", "delta"))
NULL = event(error=None, usage=None, choices=[{"index": 0, "text": "a", **NULLS}])
NO_CHOICES = event(choices=None, usage=None) + event(choices=[]) + event()
TRAILERS = HEAD + chunked(A, B, STOP, DONE, trailers=b"x: y\r\nz: y\r\n")
EXTENSIONS = HEAD + chunked(BODY).replace(b"\r\n", b";x=y\r\n", 1)
SURPLUS = HEAD + chunked(BODY) + b"what is this"
BOTH = STATUS_LINE + TYPE + b"content-length: 3\r\n" + CHUNKED + b"\r\n" + chunked(BODY)
HTTP_1_0 = b"HTTP/1.0 200 OK\r\n" + TYPE + b"\r\n" + BODY
EMPTY_DATA = b"data:\n\ndata: \n\n"
NEWLINES = b"\n\n\n"
HTML = b"\n<html>\n\n<body>data</body>\n\n</html>\n"
RAW_DEFLATE = zlib.compress(BODY)[2:-4]
FIN = Cut("fin")
SURROGATES = b'data: {"choices": [{"index": 0, "text": "\\ud83d\\ude00"}]}\n\n'
HALF_A_PAIR = SURROGATES.replace(b"\\ude00", b"")
ODD = (
    text("a", index=None, logprobs=[1], token_ids="x", stop_reason=[]),  # type: ignore[arg-type]
    text("b", index="0"),  # type: ignore[arg-type]
    event(choices=[], usage="x", model=5, metrics=[]),
)
PING = b"event: ping\ndata: <now>\n\n"
CLOSE = {"connection": "close"}
MB_20, MB_7 = 20_000_000, 7_000_000

# fmt: off
HARMLESS = [
    #   fault                       phase       what the engine does                what is seen
    Row("all events in a chunk",    ALL_ALONG,  raw(BODY),                          END, "ab"),
    Row("two events in a chunk",    ALL_ALONG,  raw(A + B, STOP + DONE),            END, "ab"),
    Row("chunks across events",     ALL_ALONG,  raw(BODY[:30], BODY[30:90], BODY[90:]),
                                                END, "ab"),
    Row("an event over many chunks", ALL_ALONG, raw(*single(A), B + STOP + DONE),   END, "ab"),
    Row("one byte at a time",       ALL_ALONG,  raw(*single(BODY)),                 END, "ab"),
    Row("comments between",         ALL_ALONG,  with_comments(WHOLE),               END, "ab"),
    Row("CRLF",                     ALL_ALONG,  raw(CRLF),                          END, "ab"),
    Row("CRLF, one byte at a time", ALL_ALONG,  raw(*single(CRLF)),                 END, "ab"),
    Row("CR",                       ALL_ALONG,  raw(CR),                            END, "ab"),
    Row("CR, one byte at a time",   ALL_ALONG,  raw(*single(CR)),                   END, "ab"),
    Row("mixed line ends",          ALL_ALONG,  raw(MIXED),                         END, "ab"),
    Row("BOM",                      NO_CONTENT, raw(BOM + BODY),                    END, "ab"),
    Row("BOM, one byte at a time",  NO_CONTENT, raw(*single(BOM + BODY)),           END, "ab"),
    Row("split UTF-8 and odd line ends", ALL_ALONG, raw(*single(ACCENTS)),              END, WORDS),
    Row("UTF-8 in one chunk",       ALL_ALONG,  raw(ACCENTS),                       END, WORDS),
    Row("data: without a space",    ALL_ALONG,  raw(SPACELESS),                     END, "ab"),
    Row("multi-line data",          ALL_ALONG,  raw(MULTI_LINE),                    END, "ab"),
    Row("multi-line data, byte by byte", ALL_ALONG, raw(*single(MULTI_LINE)),           END, "ab"),
    Row("event, id, retry and others", ALL_ALONG, raw(MORE_FIELDS),                   END, "ab"),
    Row("unknown fields",           MIDDLE,     raw(UNKNOWN, B, STOP, DONE),        END, "ab"),
    Row("null fields",              MIDDLE,     raw(NULL, B, STOP, DONE),           END, "ab"),
    Row("no choices",               NO_CONTENT, raw(NO_CHOICES, BODY),              END, "ab"),
    Row("no choices",               MIDDLE,     raw(A, NO_CHOICES, B, STOP, DONE),  END, "ab"),
    Row("empty data",               MIDDLE,     raw(A, EMPTY_DATA, B, STOP, DONE),  END, "ab"),
    Row("blank lines",              MIDDLE,     raw(NEWLINES, A, NEWLINES, B, STOP, DONE),
                                                END, "ab"),
    Row("7 MB of text",             MIDDLE,     [Text("a" * MB_7), Text("b"), *WHOLE[2:]],
                                                END, "a" * MB_7 + "b"),
    Row("finish_reason with text",  MIDDLE,     [Text("a"), Finish("stop", "b"), *WHOLE[4:]],
                                                END, "ab"),
    Row("gzip",                     ALL_ALONG,  coded("gzip", GZIPPED),             END, "ab"),
    Row("gzip, one byte at a time", ALL_ALONG,  coded("gzip", *single(GZIPPED)),    END, "ab"),
    Row("deflate",                  ALL_ALONG,  coded("deflate", zlib.compress(BODY)),
                                                END, "ab"),
    Row("deflate without zlib's frame", ALL_ALONG, coded("deflate", RAW_DEFLATE),
                                                END, "ab"),
    Row("deflate without a frame, byte by byte", ALL_ALONG, coded("deflate", *single(RAW_DEFLATE)),
                                                END, "ab"),
    Row("encoding: none",           ALL_ALONG,  coded("none", BODY),                END, "ab"),
    Row("encoding: empty",          ALL_ALONG,  coded("", BODY),                    END, "ab"),
    Row("encoding: gzip, identity", ALL_ALONG,  coded("gzip, identity", GZIPPED),   END, "ab"),
    Row("encoding: IDENTITY ,X-GZip", ALL_ALONG, coded("IDENTITY ,X-GZip ", GZIPPED), END, "ab"),
    Row("encoding: identity",       ALL_ALONG,  coded("identity", BODY),            END, "ab"),
    Row("content-length",           ALL_ALONG,  of_length(len(BODY)),               END, "ab"),
    Row("Connection: close, chunked", ALL_ALONG, [Headers(headers=CLOSE), *WHOLE],   END, "ab"),
    Row("Connection: close, to the end", ALL_ALONG, [Headers(chunked=False), *WHOLE],   END, "ab"),
    Row("to the end, one byte at a time", ALL_ALONG, [Headers(chunked=False), *raw(*single(BODY))],
                                                END, "ab"),
    Row("trailers",                 AFTER,      [WireBytes(TRAILERS)],              END, "ab"),
    Row("chunk extensions",         ALL_ALONG,  [WireBytes(EXTENSIONS)],            END, "ab"),
    Row("half an event",            AFTER,      [*WHOLE, Raw(b'data: {"cho')],      END, "ab"),
    Row("tokens",                   AFTER,      [*WHOLE, Text("c")],                END, "ab"),
    Row("tokens in the chunk of [DONE]", AFTER, raw(A, B, STOP + DONE + A),         END, "ab"),
    Row("bytes beyond the body",    AFTER,      [WireBytes(SURPLUS)],               END, "ab"),
    Row("surrogates escaped",       ALL_ALONG,  raw(SURROGATES, STOP, DONE),        END, "😀"),
    Row("half a surrogate pair",    ALL_ALONG,  raw(HALF_A_PAIR, B, STOP, DONE),    END, "\ufffdb"),
    Row("odd side fields",          ALL_ALONG,  raw(*ODD, STOP, DONE),              END, "ab"),
    Row("events of other types",    ALL_ALONG,  raw(PING, A, PING, B, STOP, PING, DONE),
                                                END, "ab"),
    Row("[DONE] without a line end", ALL_ALONG, raw(A, B, STOP, b"data: [DONE]"),   END, "ab"),
    Row("[DONE] without a line end, to the end", ALL_ALONG,
        [Headers(chunked=False), *raw(A, B, STOP, b"data: [DONE]")],                END, "ab"),
    Row("a NUL",                    ALL_ALONG,  [Text("\0"), *WHOLE[1:]],           END, "\0b"),
    Row("HTTP/1.0",                 ALL_ALONG,  [WireBytes(HTTP_1_0), FIN],         END, "ab"),
    Row("content-length and chunks", ALL_ALONG, [WireBytes(BOTH)],                  END, "ab"),
    Row("content-length: abc",      ALL_ALONG,  [*of_length("abc"), FIN],           END, "ab"),
    Row("content-length: -1",       ALL_ALONG,  [*of_length(-1), FIN],              END, "ab"),
    Row("content-length too large", AFTER,      [*of_length(9999), Stall()],        END, "ab"),
]

WRONG_TYPES = {
    "an array":             line("[]"),
    "a number":             line("5"),
    "null":                 line("null"),
    "a text":               line('"[DONE]"'),
    "choices as an object": event(choices={}),
    "choices of numbers":   event(choices=[5]),
    "choice 1 of 1":        text("a", index=1),
    "text as a number":     text(5),  # type: ignore[arg-type]
    "finish_reason as a number": text("a", 5),  # type: ignore[arg-type]
    "content as an array":  delta(content=["a"]),
}
GARBAGES = {
    "half of JSON":         line('{"choices": ['),
    "text that is no JSON": line("Internal Server Error"),
    "HTML in an event":     line("<html>"),
    "deep JSON":            line("[" * 100_000),
    "invalid UTF-8":        b"data: \xff\xfe\n\n",
    "invalid UTF-8 in a text": A.replace(b'"a"', b'"\xff"'),
    "a cut UTF-8 character": text("€").replace("€".encode(), "€".encode()[:2]),
    **{f"wrong type: {name}": data for name, data in WRONG_TYPES.items()},
}

USELESS = [
    *(Row(name, NO_CONTENT, [Raw(data)], GARBAGE) for name, data in GARBAGES.items()),
    *(Row(name, MIDDLE, [*AB, Raw(data), *WHOLE[2:]], GARBAGE, "ab")
      for name, data in GARBAGES.items()),
    *(Row(f"{name}, same chunk", MIDDLE, [Raw(A + B + data + STOP + DONE)], GARBAGE, "ab")
      for name, data in GARBAGES.items()),
    Row("a line of 20 MB",          NO_CONTENT, [Long(b"data: ", MB_20)],
                                                GARBAGE),
    Row("a line of 20 MB",          MIDDLE,     [*AB, Long(b"data: ", MB_20)],      GARBAGE, "ab"),
    Row("a line of 20 MB without an end", NO_CONTENT, [Long(b"data: ", MB_20, b""), Stall()],
                                                GARBAGE),
    Row("a line of 20 MB without an end", MIDDLE, [*AB, Long(b"data: ", MB_20, b""), Stall()],
                                                GARBAGE, "ab"),
    Row("a comment of 20 MB",       NO_CONTENT, [Long(b": ", MB_20)],
                                                GARBAGE),
    Row("a comment of 20 MB",       MIDDLE,     [*AB, Long(b": ", MB_20)],          GARBAGE, "ab"),
    Row("a token of 20 MB",         NO_CONTENT, [Text("a" * MB_20)],
                                                GARBAGE),
    Row("a token of 20 MB",         MIDDLE,     [*AB, Text("a" * MB_20)],           GARBAGE, "ab"),
    Row("no SSE at all",            NO_CONTENT, raw(HTML),                          GARBAGE),
    Row("no SSE at all",            MIDDLE,     [*AB, Raw(HTML)],                   CUT, "ab"),
    Row("said gzip, is none",       NO_CONTENT, coded("gzip", BODY),                GARBAGE),
    Row("gzip that turns bad",      NO_CONTENT, coded("gzip", GZIPPED[:10], b"\xff" * 9),
                                                GARBAGE),
]
# fmt: on

ROWS = [*HARMLESS, *USELESS]
