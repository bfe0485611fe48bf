"""A client that sees every byte: what the wire looks like is what these tests are about."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol


CAPTURES = Path(__file__).parent.parent / "captures"


class Listener(Protocol):
    """What a client can be connected to: an engine, or a real server on 127.0.0.1."""

    @property
    def port(self) -> int:
        """Where it listens."""


class Head(NamedTuple):
    """A response's status line and headers."""

    status: int
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """The value of a header that occurs at most once."""
        return dict(self.headers).get(name)


class Response(NamedTuple):
    """A whole response; `chunks` are the HTTP chunks as they were framed."""

    head: Head
    body: bytes
    chunks: list[bytes]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of the stream's events."""
        return [json.loads(chunk[6:]) for chunk in self.chunks if chunk.startswith(b"data: {")]

    @property
    def texts(self) -> list[str]:
        """The texts of a completions stream, one an event."""
        return [choice["text"] for event in self.events for choice in event["choices"]]


def read_head(stream: BinaryIO) -> Head:
    """Read a response's head."""
    _, status, _ = stream.readline().decode().split(" ", 2)
    headers = []
    while line := stream.readline().decode().rstrip("\r\n"):
        name, _, value = line.partition(": ")
        headers.append((name, value))
    return Head(int(status), headers)


def read_chunk(stream: BinaryIO) -> bytes:
    """Read one HTTP chunk; the zero chunk is b""."""
    size = int(stream.readline(), 16)
    data = stream.read(size)
    assert stream.readline() == b"\r\n"
    return data


def read_response(stream: BinaryIO, *, has_body: bool = True) -> Response:
    """Read a whole response, off a socket or a recording; that to a HEAD has no body."""
    head = read_head(stream)
    chunks: list[bytes] = []
    if not has_body:
        return Response(head, b"", chunks)
    if head.header("transfer-encoding") == "chunked":
        while chunk := read_chunk(stream):
            chunks.append(chunk)
        return Response(head, b"".join(chunks), chunks)
    return Response(head, stream.read(int(head.header("content-length") or 0)), chunks)


class RawClient:
    """One TCP connection to an engine.

    Args:
        buffer: bounds what it takes in unread, in bytes.
        timeout: seconds after which a send or a read gives up.
    """

    def __init__(self, engine: Listener, buffer: int | None = None, timeout: float = 10.0) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(timeout)
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            self._socket.connect(("127.0.0.1", engine.port))
        except OSError:
            self._socket.close()
            raise
        self.stream: BinaryIO = self._socket.makefile("rb")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def request(
        self, method: str, path: str, body: Any = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send a request, with JSON if there is a body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in headers]
        data = b""
        if body is not None:
            data = json.dumps(body).encode()
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        self.send("\r\n".join([*lines, "", ""]).encode() + data)

    def get(self, path: str) -> Response:
        """GET a path."""
        self.request("GET", path)
        return read_response(self.stream)

    def complete(self, **fields: Any) -> Response:
        """POST to /v1/completions, with a prompt unless the fields name another."""
        self.request("POST", "/v1/completions", {"prompt": "Hello there", **fields})
        return read_response(self.stream)

    def chat(self, **fields: Any) -> Response:
        """POST to /v1/chat/completions, with a message."""
        messages = [{"role": "user", "content": "Hello there"}]
        self.request("POST", "/v1/chat/completions", {"messages": messages, **fields})
        return read_response(self.stream)

    def start(self, path: str = "/v1/completions") -> None:
        """Ask for a stream and do not read the answer."""
        self.request("POST", path, {"prompt": "Hi", "messages": [], "stream": True})

    def half_close(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with an RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """End the connection with a FIN."""
        self.stream.close()
        self._socket.close()
