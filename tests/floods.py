"""Floods: what an engine sends without end, and what that costs the process in memory."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peers import Peer, Talk, read_head
from support import LIMIT, ONCE, SOON, a_task, failure

from vllm_http import Timeouts, VllmHttpAdapter, WorkerError


MB = 2**20
FLOOD = 1024 * MB
BOUND = 48 * MB
DOCUMENT_BOUND = 96 * MB  # 2 MiB of a document, its text, and what its parser makes of it
PATIENT = Timeouts(first_token=30, stall=30)
SHORT = Timeouts(first_token=LIMIT, stall=LIMIT)

OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"content-type: text/event-stream\r\n"
STREAM, CHUNKED = SSE + b"\r\n", SSE + b"transfer-encoding: chunked\r\n\r\n"


@dataclass
class Flood:
    """A talk: the head of an answer, then a block again and again until the client leaves.

    Attributes:
        sent: Bytes that the system took, its buffers of some megabytes included.
        left: The client has hung up, before the end if `sent` is less than `FLOOD`.
    """

    head: bytes
    block: bytes
    pause: float = 0.0
    sent: int = 0
    left: threading.Event = field(default_factory=threading.Event)

    def __call__(self, sock: socket.socket) -> None:
        if not read_head(sock):
            return
        sock.sendall(self.head)
        sock.setblocking(False)
        with contextlib.suppress(ConnectionError):
            while self.sent < FLOOD:
                self._send_block(sock)
                if self.pause and select.select([sock], [], [], self.pause)[0]:
                    break  # as below
        self.left.set()

    def _send_block(self, sock: socket.socket) -> None:
        """Send it once.

        Who only writes may not hear of a client that left: with its window shut, TCP tells it of
        the FIN by a read alone, which is how uvicorn notices.
        """
        rest = memoryview(self.block)
        while rest:
            readable, writable, _ = select.select([sock], [sock], [])
            if readable:
                raise ConnectionError
            if writable:
                size = sock.send(rest)
                self.sent += size
                rest = rest[size:]


@dataclass
class Peak:
    """By how many bytes the process grew beyond what it had."""

    growth: int = 0


def resident(name: str) -> int:
    """A figure of the process's memory, in bytes: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@contextlib.contextmanager
def measured() -> Iterator[Peak]:
    """Measure what a block takes at its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    peak, before = Peak(), resident("VmRSS")
    yield peak
    peak.growth = resident("VmHWM") - before


@contextlib.contextmanager
def client_of(
    talk: Talk, timeouts: Timeouts = PATIENT, max_event_bytes: int = MB
) -> Iterator[VllmHttpAdapter]:
    """An adapter on a server that holds this talk."""
    with (
        Peer(talk) as peer,
        VllmHttpAdapter(
            peer.url(), retry=ONCE, timeouts=timeouts, max_event_bytes=max_event_bytes
        ) as adapter,
    ):
        adapter._version._known = "0"  # one flood is enough
        yield adapter


def outcome(
    talk: Flood, timeouts: Timeouts = PATIENT, max_event_bytes: int = MB
) -> tuple[WorkerError, list[str]]:
    """How a task ends, its memory bounded and the server hung up on."""
    with client_of(talk, timeouts, max_event_bytes) as adapter, measured() as peak:
        error, seen = failure(adapter.submit(a_task()))
        assert talk.left.wait(SOON)

    assert talk.sent < FLOOD
    assert peak.growth < BOUND
    return error, seen
