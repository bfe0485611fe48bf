"""Servers made of bare sockets, for what a FakeEngine does not speak: TLS, proxies, sloth."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


Talk = Callable[[socket.socket], None]

# Python drops, without closing it, a socket that is reset between TCP's handshake and TLS's.
resets = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

_OPENSSL = """
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = localhost
[extensions]
subjectAltName = IP:127.0.0.1
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
subjectKeyIdentifier = hash
"""


class Peer:
    """A server on 127.0.0.1 that holds the same talk with each client; a context manager.

    Args:
        talk: Called with each accepted socket, on a thread of its own; its end is the
            connection's.
        receive_buffer: Bytes that may wait unread; None leaves it to the system.
    """

    def __init__(self, talk: Talk, *, receive_buffer: int | None = None) -> None:
        self.accepted = 0
        self._talk = talk
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="peer-accept")
        self._talks: list[tuple[socket.socket, threading.Thread]] = []

    def __enter__(self) -> Peer:
        self._acceptor.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop_listening()
        self._acceptor.join()
        for handle, thread in self._talks:
            _shut(handle)
            thread.join()
            handle.close()

    def url(self, scheme: str = "http") -> str:
        """Where it listens."""
        return f"{scheme}://127.0.0.1:{self.port}"

    def stop_listening(self) -> None:
        """Refuse new connections; those that stand go on."""
        _shut(self._listener)  # wakes accept; closing alone would not
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                # A copy ends the talk, since TLS takes the socket out of its object.
                handle = sock.dup()
                thread = threading.Thread(target=self._hold_talk, args=(sock, handle))
                self._talks.append((handle, thread))
                thread.start()

    def _hold_talk(self, sock: socket.socket, handle: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            self._talk(sock)
        _shut(handle)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def read_head(sock: socket.socket) -> bytes:
    """A request up to the blank line, and what came with it; b"" when the client leaves."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


def relay(near: socket.socket, port: int) -> None:
    """Pass bytes to that port and back, until either side ends."""
    with socket.create_connection(("127.0.0.1", port)) as far:
        while True:
            # What TLS has decrypted already is not seen by a poll.
            held = isinstance(near, ssl.SSLSocket) and near.pending()
            for source in [near] if held else select.select([near, far], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                (far if source is near else near).sendall(data)


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 that is its own authority, and its key: paths to PEM files."""

    cert: str
    key: str

    def behind_tls(self, talk: Talk) -> Talk:
        """The same talk, inside TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)

        def secured(sock: socket.socket) -> None:
            with context.wrap_socket(sock, server_side=True) as near:
                talk(near)

        return secured

    def front(self, port: int) -> Peer:
        """A server that takes off TLS and passes the rest to that port."""
        return Peer(self.behind_tls(lambda near: relay(near, port)))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate, fresh from openssl."""
    folder: Path = tmp_path_factory.mktemp("tls")
    config, made = folder / "openssl.cnf", Certificate(f"{folder}/cert.pem", f"{folder}/key.pem")
    config.write_text(_OPENSSL)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    paths = ["-config", str(config), "-keyout", made.key, "-out", made.cert]
    subprocess.run([*command, *paths], check=True, capture_output=True)
    return made
