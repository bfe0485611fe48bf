"""A task's events as the body of a WSGI response, one by one as they come.

    body = sse(adapter.submit(task))
    start_response("200 OK", body.headers)
    return body

Any WSGI server or framework takes such a body; docs/wsgi.md has Flask, Django and the servers'
settings. There is no thread and no dependency here: the server's own thread waits for events.
"""

from __future__ import annotations

import logging
import math
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from .._errors import (
    AdapterClosed,
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    Timeout,
    Unknown,
    WorkerError,
    closed_before_end,
)
from .._events import End, Error, Token, TokenEvent
from .._frames import forget_frames
from .._limits import flag, number
from ._public_error import for_strangers


__all__ = ["Body", "EventSource", "json_lines", "plain_text", "sse", "status_of"]

logger = logging.getLogger("vllm_http")

_HEADERS = [
    # No transformation: a proxy or middleware that compresses holds back what it has not filled.
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),  # nginx passes on what comes, at once
]

_LARGEST = 64 * 2**10
"""Bytes after which a piece goes out though more events wait: memory stays bounded."""


class EventSource(Protocol):
    """Where a body takes its events from; a `TokenStream` is one.

    If they stop without an `End` or `Error`, a body ends with an error: `AdapterClosed`. Only one
    that begins with a ``last_id``, as its reader has come back, may have nothing left to tell.

    One that has an attribute ``last_id`` (str or None: the id of the event that `get` returned
    last) gives each server-sent event that id, and a browser that reconnects sends it as
    ``Last-Event-ID``.
    """

    def get(self, timeout: float | None = None) -> TokenEvent | None:
        """The next event; None once all were taken.

        Args:
            timeout: Seconds to wait; None waits until there is one, 0 takes what is at hand.

        Raises:
            queue.Empty: None came in time.
        """

    def close(self) -> None:
        """Nobody listens any more. Idempotent, from any thread; who waits in `get` soon returns."""


@dataclass(frozen=True)
class _Form:
    """How events are written.

    Attributes:
        content_type: The header's value.
        write: One event, with its id; b"" for what is not shown. It raises what ends the body.
        heartbeat: What a reader of this form skips; b"" where there is no such thing.
    """

    content_type: str
    write: Callable[[TokenEvent, str | None], bytes]
    heartbeat: bytes = b""


class Body(Iterator[bytes]):
    """The body of a response: each piece holds all events that are at hand. Made by `sse` & co.

    Iterate on one thread. WSGI servers call `close` when the client has gone, and when all is sent.

    Attributes:
        headers: For ``start_response``: the content type, and what keeps proxies from waiting for
            more. There is no Content-Length.
    """

    def __init__(
        self, events: EventSource, form: _Form, heartbeat: float | None, public: bool = False
    ) -> None:
        if heartbeat is not None:
            number(0, above=True)("heartbeat", heartbeat)
        flag("public", public)
        self.headers: list[tuple[str, str]] = [("Content-Type", form.content_type), *_HEADERS]
        self._events = events
        self._form = form
        self._heartbeat = heartbeat
        self._public = public
        self._pending = b""
        self._failure: Exception | None = None  # to be raised behind what was written before it
        self._over = False
        self._begun = False  # a piece went out
        self._taken = False  # and so did the last one
        # A source that goes on behind an event may have nothing left; any other has an end to tell.
        self._wants_end = getattr(events, "last_id", None) is None

    def __iter__(self) -> Body:
        if self._taken:
            raise InvalidRequest("the body was taken already; its events come once")
        return self

    def __next__(self) -> bytes:
        """All that is at hand; waits for something, and a heartbeat is something."""
        try:
            piece = self._next_piece()
        except BaseException:  # a server that ends its worker raises SystemExit here
            self.close()
            raise
        if not piece:
            self.close()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            self._taken = self._begun
            raise StopIteration
        self._begun = True
        return piece

    def __repr__(self) -> str:
        return f"<Body {self._form.content_type} of {self._events!r}{' over' * self._over}>"

    def begin(self, timeout: float | None) -> None:
        """Wait for the first event: a task that is refused may then be answered with a status.

        Nothing is sent meanwhile, so a client that leaves is not noticed: don't wait for long.

        Args:
            timeout: Seconds; if nothing came by then, a failure is told in the body like any other.

        Raises:
            WorkerError: The task failed before anything else; `status_of` has its status. The
                body is closed.
        """
        event = self._take(timeout) if not self._pending else None
        if isinstance(event, Error):
            self._failure = None
            self.close()
            raise event.error

    def close(self) -> None:
        """End the body, and the task on the engine. Idempotent; from any thread."""
        self._over = True
        self._pending = b""
        self._events.close()

    def _next_piece(self) -> bytes:
        """What goes out next; b"" at the end."""
        beat_at = math.inf if self._heartbeat is None else time.monotonic() + self._heartbeat
        while not (self._pending or self._over):
            left = None if beat_at == math.inf else beat_at - time.monotonic()
            if left is not None and left <= 0:
                return self._form.heartbeat
            self._take(left)
        while not self._over and len(self._pending) < _LARGEST and self._take(0) is not None:
            pass
        piece, self._pending = self._pending, b""
        return piece

    def _take(self, timeout: float | None) -> TokenEvent | None:
        """Write the next event behind what is pending; None if none came, or none will."""
        try:
            event = self._events.get(timeout)
        except queue.Empty:
            return None
        except WorkerError as failure:
            event = Error(failure)
        except Exception as failure:
            logger.exception("the events of a response's body failed")
            event = Error(Unknown(f"unforeseen {type(failure).__name__} in the body"))
            event.error.__cause__ = failure
            forget_frames(event.error)
        if event is None and self._wants_end and not self._over:
            event = Error(closed_before_end())
        self._wants_end = True
        if event is None or isinstance(event, (End, Error)):
            self._over = True
        if event is not None:
            self._write(event)
        return event

    def _write(self, event: TokenEvent) -> None:
        if self._public:
            event = for_strangers(event)
        try:
            self._pending += self._form.write(event, getattr(self._events, "last_id", None))
        except WorkerError as failure:
            self._failure = failure


def sse(events: EventSource, *, heartbeat: float | None = 5.0, public: bool = True) -> Body:
    """Server-sent events, as browsers' EventSource reads them.

    Each event is ``event: <type>`` and ``data: <to_json()>``; a failure is an event as well, of
    type "error", and the last one is an "end" or an "error". What is told of a failure is its
    class, its code and a plain sentence: its own message may name the engine's URL.

    Args:
        events: A `TokenStream`, or another `EventSource`.
        heartbeat: Seconds of silence after which a comment is sent, which readers skip: only by
            writing does a server notice that its client has gone. None sends none.
        public: False tells failures whole, as ``to_json`` does.

    Raises:
        InvalidRequest: `heartbeat` is not above 0, or `public` neither True nor False.
    """
    return Body(events, _SSE, heartbeat, public)


def json_lines(events: EventSource, *, heartbeat: float | None = 5.0, public: bool = False) -> Body:
    """One line of JSON for each event, as its ``to_json`` has it; `event_from_json` reads it.

    Args:
        events: A `TokenStream`, or another `EventSource`.
        heartbeat: Seconds of silence after which an empty line is sent: only by writing does a
            server notice that its client has gone. None sends none.
        public: True tells failures as `sse` does, for readers that are strangers.

    Raises:
        InvalidRequest: `heartbeat` is not above 0, or `public` neither True nor False.
    """
    return Body(events, _LINES, heartbeat, public)


def plain_text(events: EventSource) -> Body:
    """The text of choice 0 and nothing else.

    A failure is raised to the server, which breaks the response off: a client of a chunked one
    sees that it is not whole. There is no heartbeat, since nothing can be sent that is no text: a
    client that leaves before the first token is noticed with the first token.

    Args:
        events: A `TokenStream`, or another `EventSource`.
    """
    return Body(events, _TEXT, None)


def status_of(error: WorkerError) -> tuple[HTTPStatus, list[tuple[str, str]]]:
    """What to answer where a task failed before its response has begun.

    Returns:
        The status (an int that has a ``phrase``) and headers: Retry-After, where the engine gave
        one.
    """
    status = _STATUS_OF_CODE.get(error.code)
    if status is None:
        found = [status for cls, status in _STATUS.items() if isinstance(error, cls)]
        status = found[0] if found else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = []
    wait = error.retry_after_ms  # a server of another make may have told it, and told anything
    if wait is not None and 0 <= wait < math.inf:
        headers.append(("Retry-After", str(math.ceil(wait / 1000))))
    return status, headers


_STATUS_OF_CODE = {
    "UPSTREAM_AUTH": HTTPStatus.BAD_GATEWAY,  # the program's key is wrong, not its client's
    "UPSTREAM_NOT_FOUND": HTTPStatus.NOT_FOUND,  # the model, as a rule
}
_STATUS: dict[type[WorkerError], HTTPStatus] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    CapacityExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    EngineUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    AdapterClosed: HTTPStatus.SERVICE_UNAVAILABLE,
    Timeout: HTTPStatus.GATEWAY_TIMEOUT,
    StreamingError: HTTPStatus.BAD_GATEWAY,
}


def _json(event: TokenEvent) -> bytes:
    # Half a surrogate pair has no UTF-8, but its backslash form is the JSON for it.
    return event.to_json().encode(errors="backslashreplace")


def _write_sse(event: TokenEvent, event_id: str | None) -> bytes:
    # What a browser would not send back is no place to go on from, and a line end begins a field.
    told = event_id is not None and event_id.isprintable()
    name = f"id: {event_id}\n" if told else ""
    return b"%bevent: %b\ndata: %b\n\n" % (name.encode(), event.type.encode(), _json(event))


def _write_line(event: TokenEvent, event_id: str | None) -> bytes:
    return _json(event) + b"\n"


def _write_text(event: TokenEvent, event_id: str | None) -> bytes:
    if isinstance(event, Error):
        raise event.error
    if isinstance(event, Token) and event.choice == 0:
        return event.text.encode(errors="replace")
    return b""


_SSE = _Form("text/event-stream; charset=utf-8", _write_sse, b": \n\n")
_LINES = _Form("application/x-ndjson; charset=utf-8", _write_line, b"\n")
_TEXT = _Form("text/plain; charset=utf-8", _write_text)
