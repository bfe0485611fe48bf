"""Recorded answers of a real vLLM, and bytes in pieces: what the tests without a server need."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from hypothesis import strategies as st


CAPTURES = Path(__file__).with_name("captures")

R = TypeVar("R", bound=http.client.HTTPResponse)


class Capture(NamedTuple):
    """A recorded response.

    `wire` is its body as it crossed the network, `body` what http.client makes of that, and `whole`
    tells whether the recording goes on to the end of the body.
    """

    status: int
    headers: dict[str, str]
    wire: bytes
    body: bytes
    whole: bool

    @property
    def events(self) -> list[Any]:
        """The JSON of the stream's events, read without any care."""
        events = self.body.decode().split("\n\n")
        return [json.loads(event[6:]) for event in events if event.startswith("data: {")]


@cache
def capture(name: str) -> Capture:
    """The response in a recording."""
    data = (CAPTURES / f"{name}.response.http").read_bytes()
    response = read_head(http.client.HTTPResponse, [data])
    body, whole = read_all(response)
    wire = data.partition(b"\r\n\r\n")[2]
    headers = {key.lower(): value for key, value in response.getheaders()}
    return Capture(response.status, headers, wire, body, whole)


def read_head(kind: type[R], pieces: Iterable[bytes]) -> R:
    """A response off a connection that brings these pieces, one a recv, its head read."""
    response = kind(cast("socket.socket", _Pieces(pieces)))
    response.begin()
    return response


def read_all(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """A response's body by the standard library's own reading, and whether it was whole."""
    try:
        return response.read(), True
    except http.client.IncompleteRead as cut:
        return cut.partial, False


class _Pieces(io.RawIOBase):
    """As much of a socket as http.client uses; a recv brings one piece."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = [piece for piece in pieces if piece]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 65536)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        taken = piece[: len(buffer)]
        buffer[: len(taken)] = taken
        if len(taken) < len(piece):
            self._pieces.insert(0, piece[len(taken) :])
        return len(taken)


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """The bytes in pieces, cut at these positions."""
    edges = [0, *sorted(positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def halves(data: bytes) -> Iterator[list[bytes]]:
    """Every way to cut the bytes in two."""
    return (cut(data, [position]) for position in range(1, len(data)))


def single_bytes(data: bytes) -> list[bytes]:
    """The bytes one by one."""
    return cut(data, range(1, len(data)))


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Random ways to cut the bytes in up to 50 pieces, now and then empty ones."""
    return st.lists(st.integers(0, len(data)), max_size=49).map(lambda at: cut(data, at))


def _names(*, streams: bool) -> list[str]:
    names = sorted(
        path.name.removesuffix(".response.http") for path in CAPTURES.glob("*.response.*")
    )
    event_stream = "text/event-stream"
    return [
        name
        for name in names
        if capture(name).headers.get("content-type", "").startswith(event_stream) == streams
    ]


STREAMS = _names(streams=True)
SMALL_STREAMS = [name for name in STREAMS if len(capture(name).wire) < 4096]
LARGE_STREAMS = [name for name in STREAMS if name not in SMALL_STREAMS]
REFUSALS = [name for name in _names(streams=False) if capture(name).status != 200]
