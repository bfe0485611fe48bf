"""An engine that is alive and too busy to read what it is sent, and one that is not there."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator

import peers
import pytest
import tcp_support
from peers import Certificate, Peer, read_head
from support import ONCE, SOON, a_task, stopwatch, wait_until
from tcp_support import Account

from vllm_http import TokenStream, VllmHttpAdapter, _transport_delivery


account, certificate = tcp_support.account, peers.certificate

STREAM = b"""HTTP/1.1 200 OK\r
content-type: text/event-stream\r
connection: close\r
\r
data: {"choices": [{"index": 0, "text": "read", "finish_reason": "stop"}]}

data: [DONE]

"""
MODELS = b'{"data": []}'


class Busy:
    """A server that answers a first request, and reads the next one only when it is told to.

    Attributes:
        gate: Tells it.
        received: The size of each body that it has read whole.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.received: list[int] = []

    def talk(self, sock: socket.socket) -> None:
        while head := read_head(sock):
            head, _, rest = head.partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                length = b"content-length: %d\r\n\r\n" % len(MODELS)
                sock.sendall(b"HTTP/1.1 200 OK\r\n" + length + MODELS)
                continue
            found = re.search(rb"(?i)content-length: (\d+)", head)
            assert found is not None
            size = int(found[1])
            self.gate.wait(SOON)
            got = len(rest)
            while got < size:
                piece = sock.recv(65536)
                if not piece:
                    return
                got += len(piece)
            self.received.append(got)
            sock.sendall(STREAM)
            return


@pytest.fixture
def busy() -> Iterator[Busy]:
    """One that reads on at the test's end, whatever happens."""
    busy = Busy()
    yield busy
    busy.gate.set()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("size", [100_000, 20_000_000], ids=["fits into buffers", "does not"])
@pytest.mark.parametrize("kept", [True, False])
def test_upload_to_a_busy_engine(
    busy: Busy,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    size: int,
    kept: bool,
) -> None:
    """Who acknowledges and does not read is alive: the task waits, and goes out once."""
    monkeypatch.setattr(_transport_delivery, "FORGOTTEN_AFTER", 0.1)
    talk = busy.talk if scheme == "http" else certificate.behind_tls(busy.talk)
    with (
        Peer(talk, receive_buffer=4096) as peer,
        VllmHttpAdapter(peer.url(scheme), verify=certificate.cert) as adapter,
    ):
        adapter._version._known = "0"  # nothing else is asked
        if kept:
            adapter.models()
        stream = adapter.submit(a_task(prompt="x" * size))
        threading.Event().wait(4 * _transport_delivery.FORGOTTEN_AFTER)
        busy.gate.set()
        completion = stream.result(timeout=2 * SOON)

    assert completion.metrics is not None
    assert (completion.text, completion.metrics.attempts) == ("read", 1)
    assert len(busy.received) == 1
    assert busy.received[0] > size


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_kept_connection_without_an_acknowledgement(
    busy: Busy, account: Account, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """It leads nowhere: the task goes out once more, on a fresh one, without a retry."""
    monkeypatch.setattr(_transport_delivery, "FORGOTTEN_AFTER", 0.1)
    account.acked = 100  # and stays so
    silent = threading.Event()
    talks: list[Callable[[socket.socket], None]] = [busy.talk, busy.talk]

    def talk(sock: socket.socket) -> None:
        talks.pop()(sock)
        silent.wait(SOON)

    with Peer(talk) as peer, VllmHttpAdapter(peer.url(), retry=ONCE) as adapter:
        adapter._version._known = "0"
        adapter.models()
        stream = adapter.submit(a_task(prompt="x" * size))
        threading.Event().wait(0.3)
        busy.gate.set()
        silent.set()
        completion = stream.result(timeout=2 * SOON)

    assert completion.metrics is not None
    assert (completion.text, completion.metrics.attempts) == ("read", 2)
    assert peer.accepted == 2


@pytest.mark.parametrize("end", [TokenStream.cancel, TokenStream.close])
@pytest.mark.parametrize("size", [10, 20_000_000])
def test_cancel_while_a_busy_engine_does_not_read(
    busy: Busy, end: Callable[[TokenStream], None], size: int
) -> None:
    """Neither the write nor the wait for a sign of life outlasts a cancel."""
    with Peer(busy.talk) as peer, VllmHttpAdapter(peer.url()) as adapter:
        adapter._version._known = "0"
        adapter.models()
        stream = adapter.submit(a_task(prompt="x" * size))
        threading.Event().wait(0.1)
        with stopwatch() as watch:
            end(stream)
            wait_until(lambda: adapter.running == 0)
        busy.gate.set()

    assert watch.seconds < SOON
