"""One TCP connection: requests in, bytes out, and the client's hang-up noticed at once."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from ._answer import Answer
from ._request import ReceivedRequest


Send = Callable[[bytes], None]

# An Event cannot be waited for together with a socket, so that wait looks at both in turns.
_GLANCE = 0.005
_INVALID = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\n\r\nInvalid HTTP request received."
)


class Ended(Exception):
    """The connection is over: by a script's cut or by the engine's close."""


class HungUp(Ended):
    """The connection is over because the client left."""


class Connection:
    """Serves one accepted socket; `run` is the body of its thread.

    The thread may block only in recv, send, poll and a wait for `_shut`; `shut` wakes all of them
    from any other thread.

    Args:
        opening: what comes before the first request is read.
        serve: gives the answer to a request.
    """

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        keep_alive: float,
        opening: Callable[[Connection], None],
        serve: Callable[[ReceivedRequest, Answer], None],
    ) -> None:
        self._sock = sock
        self._number = number
        self._keep_alive = keep_alive
        self._opening = opening
        self._serve = serve
        self._buffer = bytearray()
        self._gulp = 65536
        self._rest = 0.0  # seconds before each gulp of a request
        self._put: Send = self._send_all
        self._shut = threading.Event()

    def run(self) -> None:
        """Answer one request after the other until either side ends the connection."""
        try:
            self._opening(self)
            # vLLM's keep-alive clock starts with the first answer: before that it waits for ever.
            patience = None
            while self._answer_next(patience):
                patience = self._keep_alive
        except Ended:
            pass
        finally:
            # Closing alone would send nothing while a forked child holds the same socket.
            self.shut()
            self._sock.close()

    def shut(self) -> None:
        """End the connection from another thread."""
        self._shut.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def send(self, data: bytes) -> None:
        """Put bytes on the socket, waiting while the client does not read.

        Raises:
            Ended: the connection is over.
        """
        self._put(data)

    @contextlib.contextmanager
    def sending_by(self, put: Callable[[Send, bytes], None]) -> Iterator[None]:
        """Hand what is sent within the block to `put`, together with the way it would have gone."""
        before = self._put
        self._put = functools.partial(put, before)
        try:
            yield
        finally:
            self._put = before

    def listen(self, seconds: float | None) -> None:
        """Wait this long (None: for ever; 0: just look) unless the client hangs up meanwhile.

        Raises:
            Ended: the connection is over. A half-close is a hang-up, as it is for vLLM.
        """
        end = None if seconds is None else time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, BlockingIOError):
            while True:
                self._receive(None if end is None else max(0.0, end - time.monotonic()))

    def pause(self, span: float | threading.Event | None) -> None:
        """Listen for some seconds, or until an event is set, or (None) until the end.

        Raises:
            Ended: the connection is over.
        """
        _spend(span, self.listen)

    def ignore(self, span: float | threading.Event | None) -> None:
        """As `pause`, but leave unread what the client sends.

        Raises:
            Ended: the connection is over.
        """
        _spend(span, self._watch)

    def read_slowly(self, size: int, interval: float) -> None:
        """Read no more than `size` bytes at once; before each piece of a request, rest."""
        self._gulp, self._rest = size, interval

    def cut(self, *, reset: bool) -> None:
        """End the connection at once, by a reset or by an ordinary FIN.

        Raises:
            Ended: always.
        """
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.close()
        raise Ended

    def _answer_next(self, patience: float | None) -> bool:
        """Serve one request; whether there may be another one on this connection."""
        try:
            request = self._read_request(patience)
        except TimeoutError:
            return False
        except ValueError:
            self.send(_INVALID)
            return False
        answer = Answer(self, request)
        try:
            self._serve(request, answer)
        except HungUp:
            # When all content is out, losing the client is no loss.
            if not answer.complete:
                request.hung_up.set()
            raise
        finally:
            request.finished.set()
        return answer.keeps_alive

    def _read_request(self, patience: float | None) -> ReceivedRequest:
        if not self._buffer:
            self._receive(patience)
        lines = self._read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        method, path, version = lines[0].split(" ")
        pairs = [line.partition(":") for line in lines[1:]]
        headers = [(name, value.strip()) for name, _, value in pairs]
        fields = {name.lower(): value for name, value in headers}
        if fields.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks()
        else:
            body = self._read_exactly(int(fields.get("content-length", 0)))
        return ReceivedRequest(method, path, version, headers, body, self._number)

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self._read_until(b"\r\n").partition(b";")[0], 16):
            body += self._read_exactly(size)
            self._read_exactly(2)
        while self._read_until(b"\r\n"):
            pass  # trailers
        return body

    def _read_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            self._receive_more()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def _read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive_more()
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def _receive_more(self) -> None:
        self._shut.wait(self._rest)
        self._receive(None)

    def _receive(self, seconds: float | None) -> None:
        """Add what comes next to the buffer.

        Raises:
            TimeoutError, BlockingIOError: nothing came in time.
            Ended: nothing will come any more.
        """
        try:
            self._sock.settimeout(seconds)
            data = self._sock.recv(self._gulp)
        except (TimeoutError, BlockingIOError):
            raise
        except OSError:
            raise self._over() from None
        if not data:
            raise self._over()
        self._buffer += data

    def _watch(self, seconds: float | None) -> None:
        """Wait as `listen` does, but read nothing."""
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        if poll.poll(None if seconds is None else seconds * 1000):
            raise self._over()

    def _send_all(self, data: bytes) -> None:
        try:
            self._sock.settimeout(None)
            self._sock.sendall(data)
        except OSError:
            raise self._over() from None

    def _over(self) -> Ended:
        return Ended() if self._shut.is_set() else HungUp()


def _spend(span: float | threading.Event | None, attend: Callable[[float | None], None]) -> None:
    """Attend to the connection for a span: in one go, or in glances until an event is set."""
    if isinstance(span, threading.Event):
        attend(0)
        while not span.is_set():
            attend(_GLANCE)
    else:
        attend(span)
