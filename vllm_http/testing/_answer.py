"""One HTTP answer: status, headers and body, framed as uvicorn frames them under vLLM."""

from __future__ import annotations

import http
import json
import threading
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from ._connection import Connection
    from ._request import ReceivedRequest

HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_SSE = "text/event-stream; charset=utf-8"


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def compact(value: Any) -> bytes:
    """JSON as vLLM writes it: no blanks, real UTF-8."""
    return _COMPACT.encode(value).encode()


class Answer:
    """Writes the answer to one request.

    Whatever waits or writes here raises `Ended` once the connection is over.

    Attributes:
        connection: what it is written to.
        complete: all that the client needs has been sent; its leaving now is no hang-up.
        keeps_alive: whether another request may follow on this connection.
    """

    def __init__(self, connection: Connection, request: ReceivedRequest) -> None:
        self.connection = connection
        self.complete = False
        self.keeps_alive = request.keeps_alive
        self._bodyless = request.method == "HEAD"
        self._written = False  # anything at all, framed or not
        self._begun = False
        self._ended = False
        self._chunked = True

    def whole(
        self, status: int, body: Any = None, headers: HeaderFields = (), *, vary: bool = True
    ) -> None:
        """Send a complete answer: nothing, these bytes (HTML by default), or this value as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else compact(body)
        fields = {"content-length": str(len(data))}
        if body is not None:
            fields["content-type"] = _HTML if isinstance(body, bytes) else _JSON
        if vary:
            fields["vary"] = "Origin"
        head = self._head(status, _merge(headers, fields))
        self.wire(head + (b"" if self._bodyless else data))
        self._begun = self._ended = self.complete = True

    def begin(self, status: int = 200, headers: HeaderFields = (), chunked: bool = True) -> None:
        """Send the headers of a stream; without `chunked`, its end is the connection's end."""
        self._begun, self._chunked = True, chunked
        self.keeps_alive = self.keeps_alive and chunked
        fields = _merge(headers, {"content-type": _SSE, "vary": "Origin"})
        self.wire(self._head(status, fields, chunked=chunked))

    def chunk(self, data: bytes) -> None:
        """Send a piece of the body, as one HTTP chunk; the headers first where still due."""
        if not self._begun:
            self.begin()
        self.wire(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def event(self, data: str | bytes) -> None:
        """Send one SSE event with these data."""
        self.chunk(b"data: %b\n\n" % (data.encode() if isinstance(data, str) else data))

    def wire(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.listen(0)
        self._written = True
        self.connection.send(data)

    def end(self) -> None:
        """End the body, unless it has ended or the answer was written by hand."""
        if self._ended or (self._written and not self._begun):
            return
        if not self._begun:
            self.begin()
        self._ended = self.complete = True
        if self._chunked:
            self.connection.send(b"0\r\n\r\n")

    def pause(self, span: float | threading.Event | None) -> None:
        """Wait some seconds, or for an event, or (None) until the connection is over."""
        self.connection.pause(span)

    def _head(self, status: int, fields: list[tuple[str, str]], *, chunked: bool = False) -> bytes:
        fields = [("date", formatdate(usegmt=True)), ("server", "uvicorn"), *fields]
        if not self.keeps_alive:
            fields.append(("connection", "close"))
        if chunked:
            fields.append(("transfer-encoding", "chunked"))
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{k}: {v}" for k, v in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _merge(headers: HeaderFields, defaults: Mapping[str, str]) -> list[tuple[str, str]]:
    """The given headers, then the defaults that they do not replace."""
    given = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in given}
    return given + [(name, value) for name, value in defaults.items() if name not in names]


def _phrase(status: int) -> str:
    return http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown"
