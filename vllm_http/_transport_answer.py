"""An answer whose status is here and whose body is on its way: taken, or refused."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import requests
from urllib3.util.wait import wait_for_read

from ._connections_exchange import Exchange
from ._errors import WorkerError
from ._failures import CUT, GARBAGE
from ._redact import Redactor
from ._refusal import (
    Asked,
    page_instead,
    refusal_in_document,
    refusal_of_answer,
    text_of_body,
)
from ._transport_body import Body
from ._web_page import page_in


PATIENCE = 1.0
"""Seconds for the words of a refusal, which are shown; what it means is known without them."""

_MAX_SHOWN = 65536  # bytes of them
_CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# The rest of IANA's list. What is not in it says nothing of the body, whoever sends it: "none",
# "utf-8", "chunked", ...
_OTHERS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip", "aes128gcm")


class Answer:
    """One answer; exactly one of `stream`, `document` and `refusal` may be called.

    Args:
        response: As requests gives it.
        exchange: It came over this.
        asked: What was asked.
        redact: Applied to the engine's own text.
    """

    def __init__(
        self, response: requests.Response, exchange: Exchange, asked: Asked, redact: Redactor
    ) -> None:
        self.status = response.status_code
        self._response = response
        self._exchange = exchange
        self._asked = asked
        self._redact = redact

    def stream(self, wanted: str) -> Body:
        """The body, if it is of that media type.

        Raises:
            StreamingError: It is of another, or in a coding that was not asked for.
        """
        kind = self._response.headers.get("Content-Type", "")
        if re.split("[;,]", kind)[0].strip().lower() != wanted:
            raise self._of_another_kind(kind, wanted)
        return self._body()

    def document(self, limit: int) -> bytes:
        """The whole body, or its first bytes up to the limit.

        Raises:
            StreamingError: It broke off, or is in a coding that was not asked for.
        """
        body = self._body()
        try:
            pieces = []
            while limit > 0 and (piece := body.read()):
                pieces.append(piece[:limit])
                limit -= len(piece)
            return b"".join(pieces)
        finally:
            body.release()

    def refusal(self) -> WorkerError:
        """What a status other than 200 means."""
        headers = self._response.headers
        return refusal_of_answer(self.status, headers, self._beginning(), self._redact, self._asked)

    def _of_another_kind(self, kind: str, wanted: str) -> WorkerError:
        beginning = self._beginning()
        refused = refusal_in_document(beginning, self._redact)
        if refused is not None and refused.status is not None:
            return refused
        page = page_in(beginning, kind)
        if page is not None:
            return page_instead(self._asked, self._redact(page))
        said = self._redact(text_of_body(beginning))
        if "event-stream" in wanted and "json" in kind.lower():
            said = f'a stream was asked for; does a gateway before it drop "stream"? {said}'
        # With neither type nor body it was cut in its headers, as far as http.client can tell.
        return (GARBAGE if kind or beginning else CUT).error(
            f"engine answered 200 for {self._asked.url} with "
            f"{self._redact(kind) or 'no content type'}, not {wanted}: {said}"
        )

    def _body(self) -> Body:
        """The body, decoded.

        Raises:
            StreamingError: It is in a coding that was not asked for.
        """
        said = self._response.headers.get("Content-Encoding", "")
        named = [coding.strip().lower() for coding in said.split(",")]
        codings = [coding for coding in named if coding in _CODINGS or coding in _OTHERS]
        if not codings:
            return Body(self._response, self._exchange.response, "identity")
        if len(codings) == 1 and codings[0] in _CODINGS:
            return Body(self._response, self._exchange.response, _CODINGS[codings[0]])
        self._response.close()
        raise GARBAGE.error(
            f"engine answered in content encoding {self._redact(said)}, which was not asked for"
        )

    def _beginning(self) -> bytes:
        """The start of a body that is shown, as far as it comes in time; whole if it is short."""
        data = b""
        with contextlib.suppress(WorkerError):
            body = self._body()
            try:
                self._exchange.refused()
                for piece in _in_time(body):
                    data += piece
            finally:
                body.release()  # at its end, the connection can be used again
        return data[:_MAX_SHOWN]


def _in_time(body: Body) -> Iterator[bytes]:
    """What comes of a body within `PATIENCE`, however slowly it drips, up to `_MAX_SHOWN` bytes.

    Raises:
        StreamingError: It broke off.
    """
    until = time.monotonic() + PATIENCE
    fileno = body.dont_block()
    left = _MAX_SHOWN
    while left > 0 and (patience := until - time.monotonic()) > 0:
        piece = body.read_ready()
        if piece:
            left -= len(piece)
            yield piece
        elif piece is not None:
            return
        elif fileno is not None:
            wait_for_read(fileno, patience)  # type: ignore[arg-type]  # a number is enough
