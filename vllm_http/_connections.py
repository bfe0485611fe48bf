"""Connections that another thread can abort in every phase, and a pool that knows uvicorn.

urllib3's own `HTTPResponse.shutdown` needs a response. An `Exchange` knows the socket from the
moment it is connected: while the handshake runs, while headers are awaited, and in mid-body.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ._chunked import BulkResponse


MAX_IDLE = 4.0
"""Seconds after which an idle connection is not used again: vLLM 0.32 drops them after 5.00."""

MAX_AGE = 300.0
"""Seconds after which a connection gets no more requests, however busy: only a new one looks the
name up again, and finds the engines that have come up behind it since."""


class Aborted(Exception):
    """The exchange was aborted before its request went out."""


class Exchange:
    """One request and its answer, as far as its socket goes.

    `abort` may come at any time and from any thread, before there is a socket too; it never
    blocks. Once the connection is back in the pool, `abort` cannot touch it any more.

    Args:
        on_handshake: Called when TCP stands and TLS, or a proxy, is still to be talked to.
        on_request: Called when the connection stands and the request is about to be written.
        fresh: Never use a pooled connection.

    Attributes:
        reused: Whether the connection had served before.
        late: It was aborted because its handshake took too long.
        response: The answer, once there is one.
    """

    def __init__(
        self,
        on_handshake: Callable[[], None] = lambda: None,
        on_request: Callable[[], None] = lambda: None,
        *,
        fresh: bool = False,
    ) -> None:
        self.reused = False
        self.late = False
        self.response: BulkResponse | None = None
        self.fresh = fresh
        self._on_handshake = on_handshake
        self._on_request = on_request
        # Reentrant: a garbage collection inside may close the very stream this is for.
        self._lock = threading.RLock()
        self._sock: socket.socket | None = None
        self._aborted = False

    def shake_hands(self, sock: socket.socket) -> None:
        """A handshake begins on this socket, or a copy of it.

        Raises:
            Aborted: It must not.
        """
        self._hold(sock)
        self._on_handshake()

    def attach(self, sock: Any, *, reused: bool) -> None:
        """The request goes out on this socket.

        Raises:
            Aborted: It must not go out any more.
        """
        self._hold(sock)
        self.reused = reused
        self._on_request()

    def let_go(self, sock: Any) -> None:
        """This socket is about to be closed; nothing if another was attached since."""
        with self._lock:
            if self._sock is sock:
                self._sock = None

    def _hold(self, sock: Any) -> None:
        with self._lock:
            self._sock = sock
            if self._aborted:
                self.abort()
                raise Aborted

    def abort(self) -> None:
        """End the exchange now: whoever blocks on its socket wakes up with an error or an end.

        Both directions are shut down, not just reading: a forked child may hold the same socket
        open, and then closing it here would tell the engine nothing.
        """
        with self._lock:
            self._aborted = True
            sock, self._sock = self._sock, None
            if sock is not None:
                with contextlib.suppress(OSError, ValueError):
                    _shutdown(sock)

    def detach(self) -> bool:
        """The socket is about to be closed, or goes back to the pool; False if it was aborted.

        Before it is closed: `abort` must not shut down a number that is another's by then.
        """
        with self._lock:
            self._sock = None
            return not self._aborted

    def _forget_in_child(self) -> None:
        """After a fork: close the child's copy of the socket and leave the parent's alone."""
        sock, self._sock = self._sock, None
        self._lock = threading.RLock()
        if sock is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.close(sock.detach())


def _shutdown(sock: Any) -> None:
    # Not SSLSocket.shutdown: it drops TLS first, and what another thread writes at that moment
    # would go out in the clear. TLS inside a TLS proxy is an object around the socket.
    tcp = sock if isinstance(sock, socket.socket) else sock.socket
    socket.socket.shutdown(tcp, socket.SHUT_RDWR)


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
        self.send(whole)

    def send(self, data: Any) -> None:
        # Headers and body in one write: two cost a twentieth of the time to the first token.
        if self._unsent is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._unsent.append(data)

    def close(self) -> None:
        exchange, self.exchange = self.exchange, None
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
            exchange.attach(self.sock, reused=reused)


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


class _Pool:
    """What our pools add: no stale connections out, no aborted ones in."""

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
