"""Who may speak for an engine behind TLS, and who may not and is told nothing."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys
from typing import Any

import authorities
import peers
import pytest
from authorities import Authority, both_in_one, locked
from decoding import DONE, text
from peers import Certificate, Peer, Talk, read_head, resets
from support import QUICKLY, SOON, a_task, stopwatch

from vllm_http import (
    End,
    EngineUnavailable,
    Error,
    InvalidRequest,
    TokenEvent,
    VllmHttpAdapter,
    WorkerError,
)


authority, certificate = authorities.authority, peers.certificate

KEY = "tls-s3cr3t-0123"
BODY = text("a", "stop") + DONE
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


class Ears:
    """A TLS server that answers every request and keeps what it was told inside TLS.

    Args:
        certificate: What it shows.
        clients: The authority whose certificates it asks its clients for; None asks for none.
    """

    def __init__(self, certificate: Certificate, clients: str | None = None) -> None:
        self.heard: list[bytes] = []
        self.peer = Peer(self._talk)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.cert, certificate.key)
        if clients is not None:
            self._context.load_verify_locations(clients)
            self._context.verify_mode = ssl.CERT_REQUIRED

    def _talk(self, sock: socket.socket) -> None:
        with self._context.wrap_socket(sock, server_side=True) as near:
            while request := read_head(near):
                self.heard.append(request)
                near.sendall(ANSWER)


def asked(url: str, **options: Any) -> TokenEvent:
    """The last event of a task for the engine there."""
    with VllmHttpAdapter(url, api_key=KEY, retry=QUICKLY, **options) as adapter:
        adapter._version._known = "0"  # nobody else is to shake hands
        *_, last = adapter.submit(a_task())
    return last


def refused(ears: Ears, **options: Any) -> WorkerError:
    """The error of a task for a server that is not to be trusted; it was told nothing."""
    with ears.peer as peer:
        last = asked(peer.url("https"), **options)
        assert isinstance(last, Error)

    assert ears.heard == []
    return last.error


# The server's certificate.


def test_private_authority(authority: Authority) -> None:
    """A server is trusted by the bundle that is named, and told the key."""
    ears = Ears(authority.sign("good"))
    with ears.peer as peer:
        last = asked(peer.url("https"), verify=authority.cert)

    assert isinstance(last, End)
    assert f"Bearer {KEY}".encode() in ears.heard[0]


BAD = {
    # What it is signed for, its dates, and what OpenSSL says of it.
    "another host": (("DNS:other.invalid",), "mismatch"),
    "another address": (("IP:127.0.0.2",), "mismatch"),
    "expired": (("IP:127.0.0.1", "-days", "-1"), "expired"),
}


@resets
@pytest.mark.parametrize("why", BAD)
def test_bad_certificate(authority: Authority, why: str) -> None:
    """Neither signed by the right authority nor its name alone is enough; trying again is not."""
    arguments, said = BAD[why]
    error = refused(Ears(authority.sign("127.0.0.1", *arguments)), verify=authority.cert)

    assert (type(error), error.retriable) == (EngineUnavailable, False)
    assert "certificate verify failed" in error.message.lower()
    assert said in error.message
    assert KEY not in repr(error)


@resets
@pytest.mark.parametrize("verify", ["default", "another authority"])
def test_unknown_authority(authority: Authority, certificate: Certificate, verify: str) -> None:
    """A private authority, and one that a server is to itself, count where they are named only."""
    bundle = {} if verify == "default" else {"verify": certificate.cert}
    for shown in (authority.sign("good"), authority.own):
        error = refused(Ears(shown), **bundle)

        assert (type(error), error.retriable) == (EngineUnavailable, False)
        assert "self-signed" in error.message or "local issuer" in error.message


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("why", BAD)
def test_no_check_where_none_is_wanted(authority: Authority, why: str) -> None:
    """False is explicit, and takes them all."""
    ears = Ears(authority.sign("127.0.0.1", *BAD[why][0]))
    with ears.peer as peer:
        assert isinstance(asked(peer.url("https"), verify=False), End)


@resets
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_environment_names_no_authority(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Who may write the environment does not say whom to trust."""
    monkeypatch.setenv(name, authority.cert)

    assert not refused(Ears(authority.sign("good"))).retriable


def test_environment_that_is_trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless one says so."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.cert)
    with Ears(authority.sign("good")).peer as peer:
        assert isinstance(asked(peer.url("https"), trust_env=True), End)


# The client's certificate.


@pytest.mark.parametrize("files", [1, 2])
def test_client_certificate(authority: Authority, files: int) -> None:
    """It is shown to a server that asks for one, from one file or two."""
    client = authority.sign("client")
    cert = (client.cert, client.key) if files == 2 else both_in_one(client)
    with Ears(authority.sign("good"), clients=authority.cert).peer as peer:
        assert isinstance(asked(peer.url("https"), verify=authority.cert, cert=cert), End)


@resets
@pytest.mark.parametrize("whose", ["none", "another authority's"])
def test_client_certificate_that_is_wanted(
    authority: Authority, certificate: Certificate, whose: str
) -> None:
    """A server that refuses its client hears nothing of the task."""
    cert = None if whose == "none" else (certificate.cert, certificate.key)
    ears = Ears(authority.sign("good"), clients=authority.cert)
    error = refused(ears, verify=authority.cert, cert=cert)

    assert type(error) is EngineUnavailable
    assert KEY not in repr(error)


@pytest.mark.parametrize("files", [1, 2])
def test_client_key_with_a_password(authority: Authority, files: int) -> None:
    """No option takes the password: that is said at once, in the old form of PEM and the new."""
    client = authority.sign("client")
    for traditional in (False, True):
        key = locked(client, traditional=traditional)
        cert = (key.cert, key.key) if files == 2 else both_in_one(key)
        with pytest.raises(InvalidRequest, match=r"^cert: .* has a password"):
            VllmHttpAdapter("https://127.0.0.1:1", cert=cert)


PROGRAM = """
import os
import sys
from vllm_http import RetryPolicy, TaskRequest, VllmHttpAdapter
url, verify, later, *cert = sys.argv[1:]
given = cert[0] if len(cert) == 1 else tuple(cert)
with VllmHttpAdapter(url, verify=verify, cert=given, retry=RetryPolicy(attempts=1)) as adapter:
    os.replace(later, cert[-1])
    *_, last = adapter.submit(TaskRequest(prompt="Hello"))
    print(type(last.error).__name__, last.error.retriable, last.error.message)
"""


@resets
@pytest.mark.parametrize("files", [1, 2])
def test_client_key_that_gets_a_password(authority: Authority, files: int) -> None:
    """Nobody is asked for it where the adapter is made already, and its file is another then."""
    client = authority.sign("client")
    key = locked(client)
    later = key.key if files == 2 else both_in_one(key, ".both.locked")
    cert = [client.cert, client.key] if files == 2 else [both_in_one(client)]
    with (
        Ears(authority.sign("good"), clients=authority.cert).peer as peer,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, peer.url("https"), authority.cert, later, *cert],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # no terminal: OpenSSL would read a password from stdin
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        answered = select.select([process.stdout], [], [], SOON)[0]
        process.stdin.close()
        said = process.stdout.read()

    assert answered, "it waits for a password"
    assert said.startswith("EngineUnavailable False ")
    assert "encrypted" in said


# What is no TLS.


def saying(data: bytes) -> Talk:
    """A server that answers whatever comes first with these bytes."""

    def talk(sock: socket.socket) -> None:
        if sock.recv(65536):
            sock.sendall(data)

    return talk


@resets
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        b"\0" * 4096,
        bytes(range(256)) * 16,
        b"\x16\x03\x03\xff\xff" + b"x" * 65535,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x03\x00\x04\x02\xff\xff\xff",
        b"",
    ],
    ids=["HTTP", "zeros", "bytes", "a large record", "an alert", "a large hello", "nothing"],
)
def test_garbage_in_the_handshake(data: bytes) -> None:
    """It is an engine that is not there, told at once; the key never went out in the clear."""
    with Peer(saying(data)) as peer, stopwatch() as watch:
        last = asked(peer.url("https"))

    assert isinstance(last, Error)
    assert type(last.error) is EngineUnavailable
    assert watch.seconds < SOON


@resets
def test_plain_http_to_a_tls_port(authority: Authority) -> None:
    """The reverse: one scheme is never tried for the other."""
    ears = Ears(authority.sign("good"))
    with ears.peer as peer, stopwatch() as watch:
        last = asked(peer.url("http"))

    assert isinstance(last, Error)
    assert type(last.error) is EngineUnavailable
    assert ears.heard == []
    assert watch.seconds < SOON
