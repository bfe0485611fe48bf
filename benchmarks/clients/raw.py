"""The floor: a socket, a split and a decoder; and less than that, to measure the server."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

from orjson import loads
from server import TEXT_LENGTH

from .base import Job, Threaded


class Raw(Threaded):
    """Knows only what vLLM sends: one event a chunk, none with a line break inside."""

    def __init__(self, url: str, streams: int) -> None:
        self._netloc = urlsplit(url).netloc
        self._idle: list[socket.socket] = []

    def drain(self, job: Job) -> None:
        """Send, read, decode, in one thread."""
        try:
            connection = self._idle.pop()
        except IndexError:
            host, port = self._netloc.split(":")
            connection = socket.create_connection((host, int(port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps(job.body()).encode()
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (self._netloc.encode(), len(body), body)
        )
        self.read(connection, job)
        self._idle.append(connection)

    def read(self, connection: socket.socket, job: Job) -> None:
        """Read to the last chunk."""
        take = job.take
        rest = b""
        while rest != b"0\r\n\r\n":
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("the server closed")
            events = (rest + data).split(b"\n\n\r\n")
            rest = events.pop()
            for event in events:
                start = event.find(b"{")
                if start >= 0:
                    choices = loads(event[start:])["choices"]
                    if choices:
                        take(choices[0]["text"])


class Recv(Raw):
    """Receives a flood and looks at nothing but its end."""

    def read(self, connection: socket.socket, job: Job) -> None:
        """Read to the last chunk."""
        end = b""
        while not end.endswith(b"0\r\n\r\n"):
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("the server closed")
            end = end[-5:] + data if len(data) < 5 else data
        job.take(" " * TEXT_LENGTH * job.max_tokens)
