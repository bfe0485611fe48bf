"""A cable of our own: it makes packets late where the kernel cannot."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from collections import deque

import pytest


_PATH = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LARGEST = 65536
_BACKLOG = 4.0  # Seconds that packets may wait for the rate; what comes then is lost.


def _open_tun(name: str) -> int:
    """A new device's file, or a skip that says what is not permitted."""
    try:
        tun = os.open(_PATH, os.O_RDWR | os.O_NONBLOCK)
    except OSError as failure:
        pytest.skip(f"open {_PATH}: {failure}")
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as failure:
        os.close(tun)
        pytest.skip(f"TUNSETIFF {name}: {failure}")
    return tun


class Relay:
    """Two TUN devices, and a thread that carries packets from each to the other.

    The devices live until `close`, in whatever namespace they are moved to.

    Args:
        near: The name of the device that packets reach late.
        far: The name of the other one.
        latency: Seconds.
        rate: Bytes a second.
    """

    def __init__(self, near: str, far: str, latency: float, rate: float) -> None:
        self._latency = latency
        self._rate = rate
        self._near = _open_tun(near)
        try:
            self._far = _open_tun(far)
        except BaseException:
            os.close(self._near)
            raise
        self._free = 0.0  # when the line has sent all that waits for it, by time.monotonic()
        self._late: deque[tuple[float, bytes]] = deque()
        self._leave, self._left = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="relay")
        self._thread.start()

    def close(self) -> None:
        """End the thread; the devices go with it."""
        os.close(self._left)
        self._thread.join()
        for descriptor in (self._leave, self._near, self._far):
            os.close(descriptor)

    def _carry(self) -> None:
        """Blocks only in select, which `close` wakes."""
        while True:
            due = self._late[0][0] - time.monotonic() if self._late else None
            watched = [self._leave, self._near, self._far]
            ready, _, _ = select.select(watched, [], [], None if due is None else max(0.0, due))
            if self._leave in ready:
                return
            if self._near in ready:
                _put(self._far, _take(self._near))
            if self._far in ready:
                self._delay(_take(self._far))
            while self._late and self._late[0][0] <= time.monotonic():
                _put(self._near, self._late.popleft()[1])

    def _delay(self, packet: bytes) -> None:
        now = time.monotonic()
        begin = max(now, self._free)
        if begin - now < _BACKLOG:
            self._free = begin + len(packet) / self._rate
            self._late.append((self._free + self._latency, packet))


def _take(tun: int) -> bytes:
    with contextlib.suppress(OSError):  # the device is down
        return os.read(tun, _LARGEST)
    return b""


def _put(tun: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the device is down, or full: packets get lost
        os.write(tun, packet)
