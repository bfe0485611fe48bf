"""HTTP/1.1 chunked bodies, many chunks a read.

vLLM sends each event as one HTTP chunk, and the standard library's `read1` returns one chunk a
call: 5.6 to 6.8 µs an event for reading alone. `BulkResponse.read1` returns the data of all chunks
that have arrived, with one recv, and never waits for more than the first of them.
"""

from __future__ import annotations

import functools
import http.client
import re
import socket
import ssl


_RECV_BYTES = 65536
_MAX_LINE = 8192  # a chunk size with its extensions, or a trailer; nginx allows 8 KiB as well
_MAX_TRAILERS = 100  # as http.client for headers
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\Z")


@functools.lru_cache(maxsize=4096)  # a stream's events come in few sizes
def _chunk_size(line: bytes) -> int | None:
    match = _SIZE.match(line)
    return int(match[1], 16) if match is not None else None


class ChunkedBody:
    """Pushed with bytes off the wire, gives the data inside. No I/O (RFC 9112, 7.1).

    Attributes:
        ended: The last chunk and its trailers have come.
        surplus: Bytes came after the end; the connection cannot be used again.
        failure: Why nothing more will be given, or None. What came before it was given.
    """

    def __init__(self) -> None:
        self.ended = False
        self.surplus = False
        self.failure: http.client.HTTPException | None = None
        self._left = 0  # data bytes that the open chunk still owes
        self._line = b""  # a line that is not whole yet
        self._next_line = self._take_size

    def feed(self, wire: bytes) -> bytes:
        """The data in these bytes."""
        data: list[bytes] = []
        try:
            if self.failure is None:
                self._feed(wire, data)
        except http.client.HTTPException as failure:
            self.failure = failure
        return b"".join(data)

    def _feed(self, wire: bytes, data: list[bytes]) -> None:
        position = 0
        if not self._left and not self._line and self._next_line == self._take_size:
            position = _take_whole_chunks(wire, data)
        while position < len(wire) and not self.ended:
            if self._left:
                piece = wire[position : position + self._left]
                data.append(piece)
                position += len(piece)
                self._left -= len(piece)
                continue
            end = wire.find(b"\n", position) + 1
            line = self._line + wire[position : end or None]
            if len(line) > _MAX_LINE:
                raise http.client.LineTooLong("chunk size or trailer line")
            if not end:
                self._line = line
                return
            position = end
            self._line = b""
            self._next_line(line[:-1].removesuffix(b"\r"))
        self.surplus = self.surplus or position < len(wire)

    def _take_size(self, line: bytes) -> None:
        size = _chunk_size(line)
        if size is None:
            raise http.client.HTTPException("not a chunk size")
        self._left = size
        self._trailers = 0
        self._next_line = self._take_chunk_end if self._left else self._take_trailer

    def _take_chunk_end(self, line: bytes) -> None:
        if line:
            raise http.client.HTTPException("a chunk is longer than its size")
        self._next_line = self._take_size

    def _take_trailer(self, line: bytes) -> None:
        self.ended = not line
        self._trailers += 1
        if self._trailers > _MAX_TRAILERS and not self.ended:
            raise http.client.HTTPException(f"more than {_MAX_TRAILERS} trailers")


def _take_whole_chunks(wire: bytes, data: list[bytes]) -> int:
    """The chunks that are whole, each in one step; the position of what is left to look at closely.

    All but one of a read's chunks as a rule: 0.4 us a chunk, against 4 us line by line.
    """
    position = 0
    while True:
        line_end = wire.find(b"\r\n", position, position + _MAX_LINE)
        if line_end < 0:
            return position
        begin = line_end + 2
        size = _chunk_size(wire[position:line_end])
        if not size or wire[begin + size : begin + size + 2] != b"\r\n":
            return position
        end = begin + size
        data.append(wire[begin:end])
        position = end + 2


class BulkResponse(http.client.HTTPResponse):
    """A response whose `read1` takes all chunks that have arrived. Read it by `read1` only.

    Where the answer is the connection's last (``Connection: close``, HTTP/1.0, no length), closing
    the response closes the socket. `read1` closes at the body's end, as http.client does;
    `read_ready` never does: somebody watches the descriptor then, and whoever has it unwatched
    calls `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._sock = sock
        self._body = ChunkedBody()
        self._whole = False  # a body that is not chunked was read to its end
        self._ahead = True  # http.client may have read more than the headers

    def begin(self) -> None:
        """Read up to the headers of the final answer.

        http.client skips 100 alone and takes 102 and 103, which gateways send, for the answer:
        the real one would then be read by whoever gets the connection next (RFC 9110, 15.2).
        """
        super().begin()
        while 101 < self.status < 200:
            self.headers = None  # type: ignore[assignment]  # begin() does nothing otherwise
            super().begin()
        if self.status == 101:
            self.will_close = True

    def read1(self, n: int = -1) -> bytes:
        """Data of the body, as soon as there is some; b"" at its end.

        Where the end came with the data, the connection is free for others on return.
        """
        self._ahead = False  # what is buffered is taken first, all of it
        if self.fp is None or not self.chunked:
            data = super().read1(n)
            if self.length == 0:
                self.close()
            elif not data and self.length and n:
                raise http.client.IncompleteRead(b"", self.length)
            return data
        self._check()
        while not self._body.ended:
            data = self._data_in(self.fp.read1(_RECV_BYTES))
            if self.ended and not self._body.surplus:
                self.close()
            if data:
                return data
        self._check()
        return b""

    def dont_block(self) -> None:
        """Have the socket ready for `read_ready`."""
        self._sock.settimeout(0)

    def read_ready(self) -> bytes | None:
        """As `read1` on a socket that does not block; None where nothing has come."""
        self._check()
        if self.length == 0:
            self._whole = True
        if self.ended:
            return b""
        try:
            most = min(_RECV_BYTES, self.length or _RECV_BYTES)
            wire = self._read_ahead(most) or self._sock.recv(most)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        if self.chunked:
            data = self._data_in(wire)
            if data or not self._body.ended:
                return data or None
            self._check()
            return b""
        if self.length is not None:
            if not wire:
                raise http.client.IncompleteRead(wire, self.length)
            self.length -= len(wire)
        self._whole = not wire or self.length == 0
        return wire

    def _read_ahead(self, most: int) -> bytes:
        """What http.client itself has buffered, until that is empty."""
        if not self._ahead or self.fp is None:
            return b""
        held = self.fp.peek(1)
        self._ahead = bool(held)
        return self.fp.read(min(len(held), most)) if held else b""

    @property
    def ended(self) -> bool:
        """Whether the body was read to its end."""
        return self._body.ended or self._whole or self.isclosed()

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its end, and nothing came behind it."""
        return self.ended and not self._body.surplus

    def holds_bytes(self) -> bool:
        """Whether there is more to be told of than a poll of the socket shows: TLS may hold it."""
        if self._body.failure is not None:
            return True
        if isinstance(self._sock, ssl.SSLSocket):
            return self._sock.pending() > 0
        return not isinstance(self._sock, socket.socket)  # TLS inside a TLS proxy does not tell

    def _data_in(self, wire: bytes) -> bytes:
        if not wire:
            raise http.client.IncompleteRead(b"")
        data = self._body.feed(wire)
        if not data:
            self._check_failure()
        return data

    def _check(self) -> None:
        self._check_failure()
        if self._body.surplus:
            raise http.client.HTTPException("bytes came after the end of the response")

    def _check_failure(self) -> None:
        if self._body.failure is not None:
            raise self._body.failure
