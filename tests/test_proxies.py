"""An engine that is reached through a proxy: by its clocks, its refusals and its secrets."""

from __future__ import annotations

import base64
import re
import socket
import threading
from collections.abc import Callable, Iterator

import peers
import pytest
import support
from peers import Certificate, Peer, read_head, relay, resets
from support import (
    LIMIT,
    ONCE,
    QUICKLY,
    SOON,
    a_task,
    answer,
    failure,
    posts,
    ran_out,
    stopwatch,
)

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    RetryPolicy,
    Timeouts,
    TokenStream,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import FakeEngine, Stall, Text, Wait


engine, certificate, gate = support.engine, peers.certificate, support.gate

SECRET = "pr0xy-s3cr3t"
BASIC = base64.b64encode(f"user:{SECRET}".encode()).decode()
NOWHERE = "vllm.invalid:8000"


def connect(sock: socket.socket) -> None:
    """Do what a CONNECT asks for."""
    if head := read_head(sock):
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        relay(sock, int(head.split()[1].rpartition(b":")[2]))


@pytest.fixture(params=["http", "https"])
def tunnelled(
    request: pytest.FixtureRequest, engine: FakeEngine, certificate: Certificate
) -> Iterator[VllmHttpAdapter]:
    """An adapter whose way is a CONNECT proxy, itself behind TLS or not, then TLS."""
    scheme: str = request.param
    with (
        certificate.front(engine.port) as front,
        Peer(certificate.behind_tls(connect) if scheme == "https" else connect) as proxy,
        VllmHttpAdapter(
            front.url("https"), proxies={"https": proxy.url(scheme)}, verify=certificate.cert
        ) as adapter,
    ):
        yield adapter


def test_answers_come_through_a_tunnel(engine: FakeEngine, tunnelled: VllmHttpAdapter) -> None:
    """Two tasks through CONNECT and TLS get their answers, at once or word by word."""
    assert tunnelled.submit(a_task()).result(timeout=SOON).finish_reason == "length"

    engine.script(Text("a"), Wait(0.05), Text("b"), Wait(0.05), Text("c" * 50_000), *answer("d"))

    assert tunnelled.submit(a_task()).result(timeout=SOON).text == "ab" + "c" * 50_000 + "d"


def test_cancel_goes_through_a_tunnel(engine: FakeEngine, tunnelled: VllmHttpAdapter) -> None:
    """The engine behind a proxy sees the hang-up."""
    engine.script(Stall())
    stream = tunnelled.submit(a_task())
    posts(engine)

    stream.cancel()

    assert posts(engine)[0].hung_up.wait(SOON)


@resets
def test_connect_that_drips(gate: threading.Event) -> None:
    """A proxy's answer byte by byte is bounded by the connect clock, and tried again."""

    def drip(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while not gate.wait(LIMIT / 5):
            sock.sendall(b"x")

    with (
        Peer(drip) as proxy,
        VllmHttpAdapter(
            f"https://{NOWHERE}",
            proxies={"https": proxy.url()},
            timeouts=Timeouts(connect=LIMIT, first_token=SOON),
            retry=RetryPolicy(attempts=2, base=0.001),
        ) as adapter,
        stopwatch() as watch,
    ):
        error, seen = failure(adapter.submit(a_task()))
        gate.set()

    ran_out(error, "connect", watch, 2 * LIMIT)
    assert seen == ["error"]
    assert error.retriable


@pytest.mark.parametrize("end", [TokenStream.cancel, TokenStream.close])
def test_cancel_in_a_connect(end: Callable[[TokenStream], None]) -> None:
    """A proxy that does not answer a CONNECT is left at once."""
    asked, left = threading.Event(), threading.Event()

    def mute(sock: socket.socket) -> None:
        read_head(sock)
        asked.set()
        sock.recv(1)
        left.set()

    with (
        Peer(mute) as proxy,
        VllmHttpAdapter(
            f"https://{NOWHERE}", proxies={"https": proxy.url()}, timeouts=Timeouts(connect=60)
        ) as adapter,
    ):
        adapter._version._known = "0"  # nobody else is to ask the proxy
        stream = adapter.submit(a_task())
        assert asked.wait(SOON)

        end(stream)

        assert left.wait(SOON)


def refused(scheme: str, page: str) -> tuple[WorkerError, str]:
    """What a task and health() say of a proxy that wants other credentials."""
    head = f"HTTP/1.1 407 Wanted\r\ncontent-length: {len(page)}\r\nconnection: close\r\n\r\n"

    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall((head + page).encode())

    with Peer(refuse) as peer:
        proxy = f"http://user:{SECRET}@127.0.0.1:{peer.port}"
        with VllmHttpAdapter(
            f"{scheme}://{NOWHERE}", proxies={scheme: proxy}, retry=ONCE
        ) as adapter:
            error, _ = failure(adapter.submit(a_task()))
            return error, adapter.health().message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_refusal_by_a_proxy(scheme: str) -> None:
    """A proxy that wants credentials is named by its 407, and shows none of them."""
    error, health = refused(scheme, f"log in as http://user:{SECRET}@proxy:3128/")

    for text in (str(error), health):
        assert "407" in text
        assert SECRET not in text
        assert BASIC not in text


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(f"Proxy-Authorization: Basic {BASIC}", id="header"),
        pytest.param(f"{{'proxy-authorization': 'Basic {BASIC}'}}", id="dict"),
        pytest.param(f"see http://user:{SECRET}@proxy:3128/", id="URL"),
        pytest.param(f"no such user: {BASIC}", id="bare base64"),
        pytest.param(f"wrong password, {SECRET}", id="bare password"),
    ],
)
def test_credentials_that_a_proxy_repeats(page: str) -> None:
    """A password in the proxy's URL is a secret wherever it turns up."""
    error, health = refused("http", page)

    for text in (str(error), repr(error), health):
        assert SECRET not in text
        assert BASIC not in text


CONNECTS = [
    #  status     class           code                  retriable  sent
    (b"407 Wanted", InvalidRequest, "UPSTREAM_AUTH", False, 1),
    (b"403 No", InvalidRequest, "UPSTREAM_AUTH", False, 1),
    (b"400 What", InvalidRequest, "INVALID_PARAMS", False, 1),
    (b"429 Slower", CapacityExceeded, "ADMISSION_REJECT", True, 4),
    (b"500 Oops", EngineUnavailable, "POOL_UNAVAILABLE", True, 2),
    (b"501 Never", EngineUnavailable, "POOL_UNAVAILABLE", False, 1),
    (b"502 Bad Gateway", EngineUnavailable, "POOL_UNAVAILABLE", True, 4),
    (b"503 Later", EngineUnavailable, "POOL_UNAVAILABLE", True, 4),
    (b"504 Late", EngineUnavailable, "POOL_UNAVAILABLE", True, 4),
]


@pytest.mark.parametrize(("status", "kind", "code", "retriable", "sent"), CONNECTS)
def test_connect_that_is_refused(
    status: bytes, kind: type[WorkerError], code: str, retriable: bool, sent: int
) -> None:
    """A proxy's refusal has the row of its status, and is told as the proxy's."""

    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")

    with Peer(refuse) as peer:
        proxy = f"http://user:{SECRET}@127.0.0.1:{peer.port}"
        with VllmHttpAdapter(
            f"https://{NOWHERE}", proxies={"https": proxy}, retry=QUICKLY
        ) as adapter:
            adapter._version._known = "0"
            error, seen = failure(adapter.submit(a_task()))

    assert seen == ["error"]
    assert (type(error), error.code, error.retriable) == (kind, code, retriable)
    assert (error.status, peer.accepted) == (int(status[:3]), sent)
    assert error.message.startswith(f"proxy http://127.0.0.1:{peer.port} answered {error.status}")
    assert SECRET not in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_wants_credentials(scheme: str) -> None:
    """With CONNECT or without, it is named, and so is the argument that takes them; asked once."""
    error, _ = refused(scheme, "no")

    assert isinstance(error, InvalidRequest)
    assert (error.status, error.code, error.retriable) == (407, "UPSTREAM_AUTH", False)
    assert re.match(r"proxy http://127\.0\.0\.1:\d+ answered 407 \(", error.message)
    assert "proxies" in error.message


@pytest.mark.parametrize("password", ["pl%61in-word", "p%40ss-word", "p%C3%A4ss-word"])
def test_credentials_as_they_are_sent(password: str) -> None:
    """A proxy that repeats what it was sent, as it was sent, gives nothing away."""
    sent: list[str] = []

    def repeat(sock: socket.socket) -> None:
        # None where close() was faster than the question for the version.
        for value in re.findall(rb"(?i)proxy-authorization: basic (\S+)", read_head(sock)):
            sent.append(value.decode())
            page = value + b" = " + base64.b64decode(value).decode("latin-1").encode()
            head = b"HTTP/1.1 407 Wanted\r\ncontent-length: %d\r\n\r\n" % len(page)
            sock.sendall(head + page)

    with Peer(repeat) as peer:
        proxy = f"http://user:{password}@127.0.0.1:{peer.port}"
        with VllmHttpAdapter(f"http://{NOWHERE}", proxies={"http": proxy}, retry=ONCE) as adapter:
            error, _ = failure(adapter.submit(a_task()))

    assert sent[0] not in error.message
    assert "-word" not in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_is_not_there(scheme: str) -> None:
    """A refused proxy may come back, and the error does not show its password."""
    with Peer(lambda sock: None) as peer:
        port = peer.port
    proxy = f"http://user:{SECRET}@127.0.0.1:{port}"
    with VllmHttpAdapter(
        f"{scheme}://{NOWHERE}", proxies={scheme: proxy}, retry=QUICKLY
    ) as adapter:
        error, _ = failure(adapter.submit(a_task()))
        texts = [str(error), repr(error), repr(adapter), adapter.health().message]

    assert error.retriable
    assert not [text for text in texts if SECRET in text]


@pytest.mark.parametrize("proxy", [f"http://user:{SECRET}@", f"ftp://user:{SECRET}@127.0.0.1:9"])
def test_proxy_that_is_no_proxy(proxy: str) -> None:
    """A proxy URL that cannot be used is refused at once, and not repeated."""
    with pytest.raises(InvalidRequest, match="proxies") as caught:
        VllmHttpAdapter(f"http://{NOWHERE}", proxies={"http": proxy})

    assert SECRET not in f"{caught.value} {caught.value!r}"
