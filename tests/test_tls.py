"""An engine behind TLS: as abortable as without it, and never spoken to in the clear."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import peers
import pytest
import support
from peers import Certificate, Peer, resets
from support import LIMIT, QUICKLY, SOON, a_task, failure, kinds, posts, ran_out, stopwatch

from vllm_http import (
    EngineUnavailable,
    HealthState,
    InvalidRequest,
    RetryPolicy,
    Started,
    Timeouts,
    TokenStream,
    VllmHttpAdapter,
)
from vllm_http._connections import POOLS, exchanging
from vllm_http._connections_exchange import Aborted, Exchange
from vllm_http.testing import FakeEngine, Headers, Stall, Tokens


engine, certificate, gate = support.engine, peers.certificate, support.gate

PATIENT = Timeouts(connect=60)


@pytest.fixture
def front(engine: FakeEngine, certificate: Certificate) -> Iterator[Peer]:
    """TLS before the engine."""
    with certificate.front(engine.port) as front:
        yield front


@pytest.fixture
def adapter(front: Peer, certificate: Certificate) -> Iterator[VllmHttpAdapter]:
    """An adapter that trusts the certificate."""
    with VllmHttpAdapter(front.url("https"), verify=certificate.cert) as adapter:
        yield adapter


@pytest.fixture
def client_shutdowns(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLSocket]:
    """The clients' TLS sockets whose own shutdown was called."""
    called: list[ssl.SSLSocket] = []
    original = ssl.SSLSocket.shutdown

    def shutdown(self: ssl.SSLSocket, how: int) -> None:
        if not self.server_side:
            called.append(self)
        original(self, how)

    monkeypatch.setattr(ssl.SSLSocket, "shutdown", shutdown)
    return called


def test_answers_come_through_tls(front: Peer, adapter: VllmHttpAdapter) -> None:
    """Tasks one after another get whole answers over few connections."""
    for _ in range(5):
        assert kinds(adapter.submit(a_task(max_tokens=2))) == ["started", "token", "token", "end"]

    assert adapter.health().state is HealthState.HEALTHY
    assert front.accepted <= 2


def has_sent_its_request(engine: FakeEngine, adapter: VllmHttpAdapter) -> TokenStream:
    """A task that waits for headers."""
    engine.script(Stall())
    stream = adapter.submit(a_task())
    posts(engine)
    return stream


def is_accepted(engine: FakeEngine, adapter: VllmHttpAdapter) -> TokenStream:
    """A task that waits for its first token."""
    engine.script(Headers(), Stall())
    stream = adapter.submit(a_task())
    assert isinstance(stream.get(timeout=SOON), Started)
    return stream


def is_in_mid_stream(engine: FakeEngine, adapter: VllmHttpAdapter) -> TokenStream:
    """A task that waits for its second token."""
    engine.script(Tokens(1), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    return stream


@pytest.mark.parametrize("begin", [has_sent_its_request, is_accepted, is_in_mid_stream])
def test_cancel_reaches_the_engine(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    client_shutdowns: list[ssl.SSLSocket],
    begin: Callable[[FakeEngine, VllmHttpAdapter], TokenStream],
) -> None:
    """TCP is shut down under TLS: SSLSocket.shutdown would let a write go out unencrypted."""
    stream = begin(engine, adapter)

    stream.cancel()

    assert posts(engine)[0].hung_up.wait(SOON)
    assert kinds(stream)[-1] == "end"
    assert client_shutdowns == []


@pytest.mark.parametrize("end", [TokenStream.cancel, TokenStream.close])
def test_cancel_in_the_handshake(end: Callable[[TokenStream], None]) -> None:
    """A peer that never answers the hello is left at once, and so is its thread."""
    greeted, left = threading.Event(), threading.Event()

    def mute(sock: socket.socket) -> None:
        sock.recv(65536)
        greeted.set()
        while sock.recv(65536):
            pass
        left.set()

    with (
        Peer(mute) as peer,
        stopwatch() as watch,
        VllmHttpAdapter(peer.url("https"), timeouts=PATIENT) as adapter,
    ):
        adapter._version._known = "0"  # nobody else is to shake hands
        stream = adapter.submit(a_task())
        assert greeted.wait(SOON)
        end(stream)
        assert left.wait(SOON)

    assert kinds(stream) in (["end"], [])
    assert watch.seconds < SOON


def test_handshake_that_drips(gate: threading.Event) -> None:
    """The clock, not the socket, bounds a handshake, and its expiry is tried again."""

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"\x16\x03\x03\x40\x00")  # the head of a record of 16 KiB
        while not gate.wait(LIMIT / 5):
            sock.sendall(b"\0")

    retry = RetryPolicy(attempts=2, base=0.001)
    timeouts = Timeouts(connect=LIMIT)
    with (
        Peer(drip) as peer,
        VllmHttpAdapter(peer.url("https"), timeouts=timeouts, retry=retry) as adapter,
        stopwatch() as watch,
    ):
        error, _ = failure(adapter.submit(a_task()))
        gate.set()

    ran_out(error, "connect", watch, 2 * LIMIT)


@resets
def test_unknown_authority(front: Peer) -> None:
    """A certificate that nobody vouches for will not be better the next time."""
    with VllmHttpAdapter(front.url("https"), retry=QUICKLY) as adapter:
        error, seen = failure(adapter.submit(a_task()))
        health = adapter.health()

    assert seen == ["error"]
    assert isinstance(error, EngineUnavailable)
    assert not error.retriable
    assert "certificate verify failed" in error.message.lower()
    assert health.state is HealthState.UNHEALTHY
    assert front.accepted <= 3  # the task, the version, health


def after_the_hello(end: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """A server whose handshakes end so, once the client has greeted."""

    def talk(sock: socket.socket) -> None:
        sock.recv(65536)
        end(sock)

    return talk


def reset(sock: socket.socket) -> None:
    """End with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half(sock: socket.socket) -> None:
    """End with a FIN in the midst of a record."""
    sock.sendall(b"\x16\x03\x03\x40\x00" + bytes(100))


def alert(number: int) -> Callable[[socket.socket], None]:
    """End with a fatal alert."""
    return lambda sock: sock.sendall(bytes([21, 3, 3, 0, 2, 2, number]))


@resets
@pytest.mark.parametrize(
    ("end", "passing"),
    [
        pytest.param(lambda sock: None, True, id="FIN"),
        pytest.param(half, True, id="FIN in a record"),
        pytest.param(reset, True, id="RST"),
        pytest.param(alert(80), True, id="alert: internal error"),
        pytest.param(alert(40), False, id="alert: handshake failure"),
        pytest.param(alert(70), False, id="alert: protocol version"),
        pytest.param(alert(116), False, id="alert: certificate required"),
        pytest.param(lambda sock: sock.sendall(b"HTTP/1.1 400 No\r\n\r\n"), False, id="no TLS"),
    ],
)
def test_handshake_that_ends(end: Callable[[socket.socket], None], passing: bool) -> None:
    """A server that restarts ends handshakes, by FIN or RST; what TLS itself refuses is lasting."""
    with (
        Peer(after_the_hello(end)) as peer,
        VllmHttpAdapter(peer.url("https"), retry=QUICKLY) as adapter,
    ):
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, EngineUnavailable)
    assert (error.retriable, peer.accepted) == ((True, QUICKLY.attempts) if passing else (False, 1))


@resets
def test_connection_that_ends_under_tls(certificate: Certificate) -> None:
    """A FIN without TLS's own goodbye, before the answer, is what it is without TLS."""

    def talk(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.shutdown(socket.SHUT_RDWR)

    with (
        Peer(certificate.behind_tls(talk)) as peer,
        VllmHttpAdapter(peer.url("https"), verify=certificate.cert, retry=QUICKLY) as adapter,
    ):
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, EngineUnavailable)
    assert (error.retriable, peer.accepted) == (True, QUICKLY.attempts)


@pytest.mark.parametrize(
    "option", [{"verify": "/no/such.pem"}, {"cert": "/no/such.pem"}, {"cert": ("/no/a", "/no/b")}]
)
def test_missing_file_is_refused_at_once(option: dict[str, object]) -> None:
    """It is named, and no task is needed to find it out."""
    with pytest.raises(InvalidRequest, match=r"(verify|cert): .*'/no/"):
        VllmHttpAdapter("https://127.0.0.1:1", **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("spoil", [Path.unlink, Path.touch], ids=["gone", "empty"])
def test_bundle_that_is_spoilt_later(
    front: Peer, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """A CA bundle that cannot be read in the end is no bug of ours: health() does not raise."""
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    with VllmHttpAdapter(front.url("https"), verify=str(bundle), retry=QUICKLY) as adapter:
        spoil(bundle)
        error, _ = failure(adapter.submit(a_task()))

        assert isinstance(error, EngineUnavailable)
        assert adapter.health().state is HealthState.UNHEALTHY


def test_connection_aborted_before_the_handshake_is_closed(engine: FakeEngine) -> None:
    """Nobody else knows of its socket yet."""
    exchange = Exchange()
    exchange.abort()
    connection = POOLS["https"]("127.0.0.1", engine.port).ConnectionCls("127.0.0.1", engine.port)

    with warnings.catch_warnings(record=True) as said, exchanging(exchange):
        warnings.simplefilter("always")
        with pytest.raises(Aborted):
            connection.connect()
        gc.collect()

    assert [str(warning.message) for warning in said] == []
