"""Whether the other side can have read a request, by TCP's own account of what it acknowledged.

A server may close an idle connection at the very moment at which a request goes out on it, and a
firewall may have forgotten it. Neither server has read anything, so the request may be sent again,
as it must not be once an engine was at work on it.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Any

from urllib3.util.wait import wait_for_read


FORGOTTEN_AFTER = 20.0
"""Seconds without any acknowledgement after which a kept connection leads nowhere."""

ROUND_TRIP = 0.1
"""Seconds that a round trip may take at least, the other side's scheduler included."""

_SMALL = 16384  # bytes that the system takes at once on an idle connection
# Of Linux' struct tcp_info: tcpi_rtt, in microseconds, and tcpi_bytes_acked, since Linux 4.1.
_TOLD = struct.Struct("=68xI48xQ")
_INFO = getattr(socket, "TCP_INFO", None)


class Delivery:
    """A request on a connection that has served before. Begins before its first byte is written.

    It needs no option on the socket: TCP_USER_TIMEOUT would also end an upload to an engine that
    lives and is too busy to read, against the clocks that are there for it.

    Args:
        sock: Its socket; TLS may lie around it.
    """

    def __init__(self, sock: Any) -> None:
        self._began = time.monotonic()
        self._acked, _ = _account(sock)
        self._unread: bool | None = None

    def write(self, sock: Any, data: bytes) -> None:
        """Write the request, and wait for a sign of life: an answer, or an acknowledgement.

        Raises:
            OSError: The connection is dead.
        """
        if not isinstance(sock, socket.socket):  # TLS inside a TLS proxy cannot be interrupted
            sock.sendall(data)
            return
        if len(data) <= _SMALL:
            sock.sendall(data)
        else:
            self._write_much(sock, data)
        if self._nothing_acked(sock) and not wait_for_read(sock, FORGOTTEN_AFTER):
            self._check(sock)

    def _write_much(self, sock: socket.socket, data: bytes) -> None:
        left = memoryview(data)
        sock.settimeout(FORGOTTEN_AFTER)
        try:
            while left:
                left = left[sock.send(left) :]
        except TimeoutError:
            self._check(sock)
        sock.settimeout(None)
        if left:
            sock.sendall(left)  # the other side lives: from now on the clocks alone count

    def _check(self, sock: socket.socket) -> None:
        if self._nothing_acked(sock):
            silence = f"nothing was acknowledged for {FORGOTTEN_AFTER:g} s"
            raise ConnectionAbortedError(errno.ETIMEDOUT, silence)

    def _nothing_acked(self, sock: Any) -> bool:
        """Whether TCP says so; it may not tell."""
        acked, _ = _account(sock)
        return acked is not None and acked == self._acked

    def settle(self, sock: Any) -> None:
        """It is answered, or the connection ends. The first call counts."""
        if self._unread is None:
            acked, rtt = _account(sock)
            nothing = acked is not None and acked == self._acked
            at_once = time.monotonic() - self._began <= max(ROUND_TRIP, 2 * rtt)
            self._unread = nothing or at_once

    @property
    def unread(self) -> bool:
        """Whether it ended before the other side can have read it, as far as was settled."""
        return self._unread is True


def _account(sock: Any) -> tuple[int | None, float]:
    """Bytes that the other side has acknowledged, or None, and the round trip in seconds.

    What the system does not tell is left to the time that has passed.
    """
    tcp = sock if isinstance(sock, socket.socket) else getattr(sock, "socket", None)
    if _INFO is None or tcp is None:
        return None, 0.0
    try:
        told = tcp.getsockopt(socket.IPPROTO_TCP, _INFO, _TOLD.size)
        rtt, acked = _TOLD.unpack(told)
    except (OSError, struct.error):  # it is closed, or no TCP; the system is older
        return None, 0.0
    return acked, rtt / 1e6
