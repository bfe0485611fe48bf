"""Connections that tell an `Exchange` of their socket, and a pool that knows uvicorn."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ._chunked import BulkResponse
from ._connections_exchange import Aborted, Exchange
from ._transport_delivery import Delivery


MAX_IDLE = 4.0
"""Seconds after which an idle connection is not used again: vLLM 0.32 drops them after 5.00."""

MAX_AGE = 300.0
"""Seconds after which a connection gets no more requests, however busy: only a new one looks the
name up again, and finds the engines that have come up behind it since."""


_current = threading.local()


@contextlib.contextmanager
def exchanging(exchange: Exchange) -> Iterator[None]:
    """Requests that this thread opens inside the block belong to the exchange."""
    _current.exchange = exchange
    try:
        yield
    finally:
        _current.exchange = None


def _exchange() -> Exchange | None:
    return getattr(_current, "exchange", None)


class _Abortable:
    """What our connections add, bulk reads aside: they tell the exchange of their socket."""

    # http.client prints what it sends, key and prompt included, if an application sets this on its
    # class to see its own requests. What we send is not for its outputs.
    debuglevel = 0
    exchange: Exchange | None = None
    made_at = 0.0
    idle_since = 0.0
    sock: Any
    timeout: float | None
    _unsent: list[bytes] | None = None  # of the request that is being made
    _delivery: Delivery | None = None  # writes it, where the connection had served before

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.made_at = time.monotonic()
        self._attach(reused=False)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.timeout = None  # urllib3 sets it on the socket again
            if self.exchange is None:
                self._attach(reused=True)
        self._unsent = []
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            whole = b"".join(self._unsent)
        finally:
            self._unsent = None
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.write(self.sock, whole)
        else:
            self.send(whole)

    def send(self, data: Any) -> None:
        # Headers and body in one write: two cost a twentieth of the time to the first token.
        if self._unsent is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._unsent.append(data)

    def close(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None and self.sock is not None:
            exchange.settle(self.sock)  # the socket tells nothing once it is closed
        # Where there is a response it holds the socket as well, and detaches when it lets go.
        if exchange is not None and exchange.response is None:
            exchange.detach()
        super().close()  # type: ignore[misc]

    def _attach(self, *, reused: bool) -> None:
        # The connect timeout ends here: it would bound the writing of a large request as a whole.
        self.sock.settimeout(None)
        exchange = _exchange()
        if exchange is not None:
            self.exchange = exchange
            self._delivery = exchange.attach(self.sock, reused=reused)


class _Response(BulkResponse):
    """Tells its exchange of itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchange: Callable[[], Exchange | None] = lambda: None
        exchange = _exchange()
        if exchange is not None:
            exchange.response = self
            self._exchange = weakref.ref(exchange)

    def close(self) -> None:
        exchange = self._exchange()
        if exchange is not None:
            exchange.detach()
        super().close()

    def _read_status(self) -> Any:
        line = super()._read_status()  # type: ignore[misc]
        exchange = _exchange()
        if exchange is not None:
            exchange.answered(line[1], self._sock)
        return line


class _Connection(_Abortable, HTTPConnection):
    response_class = _Response


class _TLSConnection(_Abortable, HTTPSConnection):
    response_class = _Response
    _handshake: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        exchange = _exchange()
        if exchange is not None:
            # A copy, since the handshake takes the socket out of its object.
            self._handshake = sock.dup()
            try:
                exchange.shake_hands(self._handshake)
            except Aborted:
                sock.close()  # nobody else knows of it yet
                raise
        return sock

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._handshake is not None:
                exchange = _exchange()
                if exchange is not None:
                    exchange.let_go(self._handshake)
                self._handshake.close()
                self._handshake = None


class _Idle:
    """Idle connections, the latest first: what urllib3 needs of a `queue.LifoQueue`, but its lock.

    A collection may run inside that lock and, on the same thread, a finalizer that closes the
    adapter and with it this pool. Each step of a deque is whole by itself.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._idle: deque[Any] = deque()
        self._maxsize = maxsize

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, connection: Any, block: bool = True, timeout: float | None = None) -> None:
        if len(self._idle) >= self._maxsize:
            raise queue.Full
        self._idle.append(connection)

    def qsize(self) -> int:
        return len(self._idle)


class _Pool:
    """What our pools add: no stale connections out, no aborted ones in."""

    QueueCls: Any = _Idle

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        exchange = _exchange()
        now = time.monotonic()
        too_old = now - connection.idle_since > MAX_IDLE or now - connection.made_at > MAX_AGE
        if connection.sock is not None and (too_old or (exchange is not None and exchange.fresh)):
            connection.close()
        return connection

    def _put_conn(self, connection: Any) -> None:
        if connection is not None:
            exchange, connection.exchange = connection.exchange, None
            connection.idle_since = time.monotonic()
            if exchange is not None and not exchange.detach():
                connection.close()
        super()._put_conn(connection)  # type: ignore[misc]


class _ConnectionPool(_Pool, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSConnectionPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


POOLS = {"http": _ConnectionPool, "https": _TLSConnectionPool}
