"""The body of an accepted answer: read by a worker until there is content, then by the reader."""

from __future__ import annotations

import zlib

import requests

from ._chunked import BulkResponse
from ._transport_errors import BODY, body_error


READ_BYTES = 65536

ENCODINGS = ("identity", "gzip", "deflate", "")
"""Content encodings that are read; only the first is asked for."""

_GZIP_OR_ZLIB = 47  # zlib's window bits for "look which of the two it is"


class Body:
    """Data as it arrives. Once `release` was called nothing else may be.

    Args:
        answer: As requests gives it.
        response: What it was read from; None where a mock made the answer.
        encoding: Of the content; one of `ENCODINGS`.
    """

    def __init__(
        self, answer: requests.Response, response: BulkResponse | None, encoding: str
    ) -> None:
        self._answer = answer
        self._response = response
        self._inflate = (
            zlib.decompressobj(_GZIP_OR_ZLIB) if encoding in ("gzip", "deflate") else None
        )

    def read(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. An abort of the exchange wakes it.

        Raises:
            StreamingError: The connection broke.
        """
        if self._response is None:
            return read(self._answer)
        try:
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
            wire = self._response.read_ready()
            return (self._plain(wire) or None) if wire else wire
        except BODY as failure:
            error = body_error(failure)
        raise error

    def _plain(self, wire: bytes) -> bytes:
        return wire if self._inflate is None else self._inflate.decompress(wire)

    def dont_block(self) -> int | None:
        """From now on `read_ready` reads; what to poll, or None where all is in memory."""
        if self._response is None or self._response.isclosed():
            return None
        self._response.dont_block()
        return self._response.fileno()

    @property
    def ended(self) -> bool:
        """Whether it was read to its end."""
        return self._response is not None and self._response.ended

    def holds_bytes(self) -> bool:
        """Whether `read_ready` should be called again, whatever a poll says."""
        return self._response is not None and self._response.holds_bytes()

    def release(self) -> None:
        """Let go of the connection: to the pool if the body was read to its end."""
        if self._response is not None and self._response.isclosed():
            self._answer.raw.release_conn()
        else:
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
