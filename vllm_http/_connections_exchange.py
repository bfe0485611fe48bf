"""One request and its answer, which another thread can abort in every phase.

urllib3's own `HTTPResponse.shutdown` needs a response. An `Exchange` knows the socket from the
moment it is connected: while the handshake runs, while headers are awaited, and in mid-body.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from ._chunked import BulkResponse
from ._transport_delivery import Delivery


class Aborted(Exception):
    """The exchange was aborted before its request went out."""


class Exchange:
    """One request and its answer, as far as its socket goes.

    `abort` may come at any time and from any thread, before there is a socket too; it never
    blocks. Once the connection is back in the pool, `abort` cannot touch it any more.

    Args:
        on_handshake: Called when TCP stands and TLS, or a proxy, is still to be talked to.
        on_request: Called when the connection stands and the request is about to be written.
        on_resend: Called with the exchange when the request goes out once more.
        on_refusal: Called with the exchange when the status says no; its words are to come.
        fresh: Never use a pooled connection.

    Attributes:
        requested: Whether the request was about to be written, or more.
        status: The latest one that came; a proxy's, while nothing is `requested`.
        late: It was aborted because its handshake took too long.
        response: The answer, once there is one.
    """

    def __init__(
        self,
        on_handshake: Callable[[], None] = lambda: None,
        on_request: Callable[[], None] = lambda: None,
        *,
        on_resend: Callable[[Exchange], None] = lambda exchange: None,
        on_refusal: Callable[[Exchange], None] = lambda exchange: None,
        fresh: bool = False,
    ) -> None:
        self.requested = False
        self.status: int | None = None
        self.late = False
        self.response: BulkResponse | None = None
        self.fresh = fresh
        self._on_handshake = on_handshake
        self._on_request = on_request
        self._on_resend = on_resend
        self._on_refusal = on_refusal
        self._delivery: Delivery | None = None  # on a connection that had served before
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

    def attach(self, sock: Any, *, reused: bool) -> Delivery | None:
        """The request goes out on this socket.

        Returns:
            Who is to write it, where the connection had served before.

        Raises:
            Aborted: It must not go out any more.
        """
        self._hold(sock)
        self.requested, self.status = True, None
        self._delivery = Delivery(sock) if reused else None
        self._on_request()
        return self._delivery

    def answered(self, status: int, sock: Any) -> None:
        """A status line has come."""
        self.status = status
        if status == 408:  # all others say that the request was read
            self.settle(sock)

    def settle(self, sock: Any) -> None:
        """The request is answered, or its connection is about to be closed."""
        if self._delivery is not None:
            self._delivery.settle(sock)

    @property
    def unread(self) -> bool:
        """Whether it met a kept connection that ended before anybody can have read the request."""
        return self._delivery is not None and self._delivery.unread

    def refused(self) -> None:
        """The status says no; its words are waited for, for a moment."""
        self._on_refusal(self)

    def resend(self) -> None:
        """The request goes out once more, on a fresh connection.

        Raises:
            Aborted: It must not.
        """
        if self._aborted:
            raise Aborted
        self.fresh = True
        self.requested, self.status, self.response = False, None, None
        self._delivery = None
        self._on_resend(self)

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

    def let_go(self, sock: Any) -> None:
        """This socket is about to be closed; nothing if another was attached since."""
        with self._lock:
            if self._sock is sock:
                self._sock = None

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
