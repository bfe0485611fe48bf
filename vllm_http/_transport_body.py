"""The body of an accepted answer: read by a worker until there is content, then by the reader."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import requests

from ._chunked import BulkResponse
from ._inflate import Inflater
from ._transport_errors import BODY, body_error


READ_BYTES = 65536


class Body:
    """Data as it arrives, and the socket that it comes from.

    Invariant: a descriptor that is watched is open, and is this body's. After `dont_block` nothing
    but `release` closes it, and that has it unwatched before. A number that is closed while it is
    watched is soon another connection's, and a child that was forked meanwhile may hold the old
    file open, so that the system goes on to tell of it.

    Once `release` was called nothing else may be; `close` alone, where that has raised.

    Args:
        answer: As requests gives it.
        response: What it was read from; None where a mock made the answer.
        encoding: Of the content: "identity", "gzip" or "deflate".
    """

    def __init__(
        self, answer: requests.Response, response: BulkResponse | None, encoding: str
    ) -> None:
        self._answer = answer
        self._response = response
        self._inflater = Inflater(encoding) if encoding != "identity" else None
        self._fileno: int | None = None
        self._unwatch: Callable[[int], None] | None = None

    def read(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. An abort of the exchange wakes it.

        Raises:
            StreamingError: The connection broke.
        """
        if self._response is None:
            return read(self._answer)
        try:
            if data := self._held():
                return data
            while wire := self._response.read1(READ_BYTES):
                if data := self._plain(wire):
                    return data
        except BODY as failure:
            error = body_error(failure)
        else:
            return b""
        raise error

    def read_ready(self) -> bytes | None:
        """As `read`, after `dont_block`: None where nothing has arrived.

        Raises:
            StreamingError: The connection broke.
        """
        if self._response is None:
            return self.read()
        try:
            if data := self._held():
                return data
            wire = self._response.read_ready()
            if not wire:
                return wire
            return self._plain(wire) or (b"" if self.ended else None)
        except BODY as failure:
            error = body_error(failure)
        raise error

    def _plain(self, wire: bytes) -> bytes:
        if self._inflater is None:
            return wire
        data = self._inflater.feed(wire)
        return data or self._held()  # a failure, where there is no data

    def _held(self) -> bytes:
        """What is left of an earlier read."""
        if self._inflater is None:
            return b""
        if self._inflater.failure is not None:
            raise self._inflater.failure
        return self._inflater.feed(b"")

    def dont_block(self) -> int | None:
        """From now on `read_ready` reads. The socket's descriptor; None if all is in memory."""
        if self._response is not None and not self._response.isclosed():
            self._response.dont_block()
            self._fileno = self._response.fileno()
        return self._fileno

    def watch(self, watch: Callable[[int], None], unwatch: Callable[[int], None]) -> None:
        """Have the socket watched. On the thread that watches, as are the two below.

        Args:
            watch: Called with the descriptor; may raise OSError.
            unwatch: Called with it in the end.
        """
        if self._fileno is not None:
            try:
                watch(self._fileno)
            except BaseException:
                with contextlib.suppress(KeyError):  # as far as that got
                    unwatch(self._fileno)
                raise
            self._unwatch = unwatch

    def unwatch(self) -> None:
        """Have it watched no more; nothing if it is not."""
        if self._unwatch is not None and self._fileno is not None:
            self._unwatch(self._fileno)
            self._unwatch = None  # not before: else it would be closed while it is watched

    @property
    def watched(self) -> bool:
        """Whether it is."""
        return self._unwatch is not None

    @property
    def ended(self) -> bool:
        """Whether it was read to its end."""
        if self._response is None or not self._response.ended:
            return False
        return self._inflater is None or not self._inflater.holds_bytes

    def holds_bytes(self) -> bool:
        """Whether `read_ready` should be called again, whatever a poll says."""
        if self._inflater is not None and self._inflater.holds_bytes:
            return True
        return self._response is not None and self._response.holds_bytes()

    def release(self) -> None:
        """Let go of the connection: to the pool if the body was read to its end."""
        self.unwatch()
        response = self._response
        if response is not None and response.reusable:
            response.close()
            self._answer.raw.release_conn()
        else:
            self._answer.close()

    def close(self) -> None:
        """Let go of the connection for good."""
        try:
            self.unwatch()
        finally:
            self._answer.close()


def read(answer: requests.Response) -> bytes:
    """What has arrived of a document, at least one byte; b"" at its end.

    Raises:
        StreamingError: The connection broke.
    """
    try:
        return answer.raw.read1(READ_BYTES, decode_content=True) or b""
    except BODY as failure:
        error = body_error(failure)
    raise error
