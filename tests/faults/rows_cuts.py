"""Rows: an accepted stream whose connection breaks, or that ends before it should."""

from __future__ import annotations

import gzip

from decoding import event, text
from faults.row import (
    AFTER,
    CUT,
    DOWN,
    END,
    FULL,
    INVALID,
    MIDDLE,
    NO_CONTENT,
    NO_DONE,
    NOT_FOUND,
    UNABLE,
    Row,
)
from faults.scripts import AB, ALL_BUT_DONE, BODY, STATUS_LINE, TYPE, WHOLE, A, B

from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    EndBody,
    ErrorEvent,
    Event,
    Finish,
    Headers,
    Raw,
    Role,
    Text,
    WireBytes,
)


BEGUN, RST, FIN, DONE, END_BODY = Headers(), Cut("rst"), Cut("fin"), Done(), EndBody()
NO_TEXT = Raw(text(""))
HALF_EVENT = Raw(b'data: {"choices": [')
HALF_LINE_END = Raw(A[:-1])  # one LF of two
HALF_DONE = Raw(b"data: [DONE]\n")
HALF_CHUNK = WireBytes(b"40\r\ndata: {")
HALF_ZERO = WireBytes(b"0\r\n")
HALF_SIZE = WireBytes(b"4")
NO_CHUNK = WireBytes(b"what is this\r\n")
HUGE_CHUNK = WireBytes(b"fffffffffffffff\r\nxx")
LONGER = STATUS_LINE + TYPE + b"content-length: 9999\r\n\r\n"
TO_EOF = Headers(chunked=False)
GZIP = Headers(headers={"content-encoding": "gzip"})
HALF_GZIP = Raw(gzip.compress(BODY)[:20])
ONE_ID = Event({"choices": [{"index": 0, "text": "", "token_ids": [7]}]})
E_400, E_404, E_429, E_500, E_501, E_503 = (
    ErrorEvent("Bad day", code) for code in (400, 404, 429, 500, 501, 503)
)
ERROR = event(error={"message": "Bad day", "code": 500})
NO_CODE = Event({"error": {"message": "Bad day"}})
JUST_WORDS = Event({"error": "Bad day"})
OTHER_FORM = Raw(b'event: error\ndata: {"message": "Bad day"}\n\n')
OLD_FORM = Event({"object": "error", "message": "Bad day", "code": 400})

# fmt: off
CUTS = [
    #   fault                       phase       what the engine does                what is seen
    Row("RST",                      NO_CONTENT, [BEGUN, RST],                       CUT, sent=3),
    Row("RST",                      MIDDLE,     [*AB, RST],                         CUT, "ab"),
    Row("RST",                      NO_DONE,    [*ALL_BUT_DONE, RST],               CUT, "ab"),
    Row("RST",                      AFTER,      [*WHOLE, RST],                      END, "ab"),
    Row("FIN",                      NO_CONTENT, [BEGUN, FIN],                       CUT, sent=3),
    Row("FIN between chunks",       MIDDLE,     [*AB, FIN],                         CUT, "ab"),
    Row("FIN",                      NO_DONE,    [*ALL_BUT_DONE, FIN],               CUT, "ab"),
    Row("FIN",                      AFTER,      [*WHOLE, FIN],                      END, "ab"),
    Row("RST after a comment",      NO_CONTENT, [Comment(), RST],                   CUT, sent=3),
    Row("RST after a role",         NO_CONTENT, [Role(), RST],
                                                CUT, sent=3, chat=True),
    Row("RST after empty text",     NO_CONTENT, [NO_TEXT, RST],                     CUT, sent=3),
    Row("RST after a token id",     MIDDLE,     [ONE_ID, RST],                      CUT),
    Row("RST after a lone finish",  NO_DONE,    [Finish(), RST],                    CUT),
    Row("RST inside an event",      NO_CONTENT, [HALF_EVENT, RST],                  CUT, sent=3),
    Row("RST inside an event",      MIDDLE,     [*AB, HALF_EVENT, RST],             CUT, "ab"),
    Row("FIN inside an event",      NO_CONTENT, [HALF_EVENT, FIN],                  CUT, sent=3),
    Row("FIN inside an event",      MIDDLE,     [*AB, HALF_EVENT, FIN],             CUT, "ab"),
    Row("FIN inside a line end",    NO_CONTENT, [HALF_LINE_END, FIN],               CUT, sent=3),
    Row("FIN inside a line end",    MIDDLE,     [*AB, HALF_LINE_END, FIN],          CUT, "ab"),
    Row("FIN inside a chunk",       NO_CONTENT, [BEGUN, HALF_CHUNK, FIN],           CUT, sent=3),
    Row("FIN inside a chunk",       MIDDLE,     [*AB, HALF_CHUNK, FIN],             CUT, "ab"),
    Row("FIN inside a chunk size",  MIDDLE,     [*AB, HALF_SIZE, FIN],              CUT, "ab"),
    Row("FIN inside [DONE]",        NO_DONE,    [*ALL_BUT_DONE, HALF_DONE, FIN],    CUT, "ab"),
    Row("FIN inside the zero chunk", AFTER,     [*WHOLE, HALF_ZERO, FIN],           END, "ab"),
    Row("no chunk size",            NO_CONTENT, [BEGUN, NO_CHUNK],                  CUT, sent=3),
    Row("FIN, read to the end",     NO_CONTENT, [TO_EOF, FIN],                      CUT, sent=3),
    Row("FIN, read to the end",     MIDDLE,     [TO_EOF, *AB, FIN],                 CUT, "ab"),
    Row("FIN, read to the end",     NO_DONE,    [TO_EOF, *ALL_BUT_DONE, FIN],       CUT, "ab"),
    Row("FIN inside an event, read to the end", MIDDLE, [TO_EOF, *AB, HALF_EVENT, FIN],
                                                CUT, "ab"),
    Row("FIN, content-length",      MIDDLE,     [WireBytes(LONGER + A + B), FIN],   CUT, "ab"),
    Row("RST, content-length",      MIDDLE,     [WireBytes(LONGER + A + B), RST],   CUT, "ab"),
    Row("FIN inside a huge chunk",  MIDDLE,     [*AB, HUGE_CHUNK, FIN],             CUT, "ab"),
    Row("FIN inside gzip",          NO_CONTENT, [GZIP, HALF_GZIP, FIN],             CUT, sent=3),
]

ENDINGS = [
    Row("end of the body",          NO_CONTENT, [BEGUN, END_BODY],                  CUT, sent=3),
    Row("end of the body",          MIDDLE,     [*AB, END_BODY],                    CUT, "ab"),
    Row("no [DONE]",                NO_DONE,    [*ALL_BUT_DONE, END_BODY],          CUT, "ab"),
    Row("[DONE] alone",             NO_CONTENT, [DONE],                             CUT, sent=3),
    Row("comment alone",            NO_CONTENT, [Comment()],                        CUT, sent=3),
    Row("role, then [DONE]",        NO_CONTENT, [Role(), DONE],
                                                CUT, sent=3, chat=True),
    Row("role, then the end",       NO_CONTENT, [Role(), END_BODY],
                                                CUT, sent=3, chat=True),
    Row("no finish_reason",         MIDDLE,     [*AB, DONE],                        CUT, "ab"),
    Row("abort",                    NO_CONTENT, [Finish("abort"), DONE],            CUT, sent=3),
    Row("abort",                    MIDDLE,     [*AB, Finish("abort"), DONE],       CUT, "ab"),
    Row("abort with text",          MIDDLE,     [*AB, Finish("abort", "c"), DONE],  CUT, "abc"),
    Row("an empty answer",          NO_CONTENT, [Finish("stop"), DONE],             END),
    Row("an empty chat",            NO_CONTENT, [Role(), Finish("stop"), DONE],     END, chat=True),
]

ERRORS = [
    Row("error 400, [DONE]",        NO_CONTENT, [E_400, DONE],
                                                INVALID, status=400, says="Bad day"),
    Row("error 404, [DONE]",        NO_CONTENT, [E_404, DONE],
                                                NOT_FOUND, status=404),
    Row("error 429, [DONE]",        NO_CONTENT, [E_429, DONE],
                                                FULL, sent=3, status=429),
    Row("error 500, [DONE]",        NO_CONTENT, [E_500, DONE],
                                                DOWN, sent=2, status=500, says="Bad day"),
    Row("error 501, [DONE]",        NO_CONTENT, [E_501, DONE],
                                                UNABLE, status=501),
    Row("error 503, [DONE]",        NO_CONTENT, [E_503, DONE],
                                                DOWN, sent=3, status=503),
    Row("error 503 after a role",   NO_CONTENT, [Role(), E_503, DONE],
                                                DOWN, sent=3, status=503, chat=True),
    Row("error 503, no [DONE]",     NO_CONTENT, [E_503],
                                                DOWN, sent=3, status=503),
    Row("error 503, RST",           NO_CONTENT, [E_503, RST],
                                                DOWN, sent=3, status=503),
    Row("error without a code",     NO_CONTENT, [NO_CODE, DONE],
                                                DOWN, sent=3, says="Bad day"),
    Row("error that is a text",     NO_CONTENT, [JUST_WORDS, DONE],
                                                DOWN, sent=3, says="Bad day"),
    Row("error in vLLM's old form", NO_CONTENT, [OLD_FORM, DONE],
                                                INVALID, status=400, says="Bad day"),
    Row("error 400, [DONE]",        MIDDLE,     [*AB, E_400, DONE],
                                                DOWN, "ab", status=400),
    Row("error 500, [DONE]",        MIDDLE,     [*AB, E_500, DONE],
                                                DOWN, "ab", status=500, says="Bad day"),
    Row("error 503, [DONE]",        MIDDLE,     [*AB, E_503, DONE],
                                                DOWN, "ab", status=503),
    Row("error 503, tokens",        MIDDLE,     [*AB, E_503, Text("c"), DONE],
                                                DOWN, "ab", status=503),
    Row("error without a code",     MIDDLE,     [*AB, NO_CODE, DONE],
                                                DOWN, "ab", says="Bad day"),
    Row("error in vLLM's old form", MIDDLE,     [*AB, OLD_FORM, DONE],
                                                DOWN, "ab", status=400),
    Row("error 500, [DONE]",        NO_DONE,    [*ALL_BUT_DONE, E_500, DONE],
                                                DOWN, "ab", status=500),
    Row("event: error",             NO_CONTENT, [OTHER_FORM],
                                                DOWN, sent=3, says="Bad day"),
    Row("event: error",             MIDDLE,     [*AB, OTHER_FORM],
                                                DOWN, "ab", says="Bad day"),
    Row("error 500",                AFTER,      [*WHOLE, E_500],                    END, "ab"),
    Row("error in the tokens' chunk", MIDDLE, [Raw(A + B + ERROR)],
                                                DOWN, "ab", status=500),
]
# fmt: on

ROWS = [*CUTS, *ENDINGS, *ERRORS]
