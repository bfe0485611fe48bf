"""The steps that need no request: those of a connection's script, and of use in any other."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from ._stage import ConnectionStage


@dataclass(frozen=True)
class Wait:
    """Silence, for some seconds or until an event is set."""

    span: float | threading.Event

    def play(self, stage: ConnectionStage) -> None:
        stage.connection.pause(self.span)


@dataclass(frozen=True)
class Stall:
    """Silence with the connection open, until the client leaves or the engine closes."""

    def play(self, stage: ConnectionStage) -> None:
        stage.connection.pause(None)


@dataclass(frozen=True)
class Ignore:
    """Silence in which nothing is read either: for a span as in `Wait`, or (None) as in `Stall`.

    What the client sends meanwhile waits in the sockets' buffers; when these are full, some
    megabytes on the loopback, its sending blocks.
    """

    span: float | threading.Event | None = None

    def play(self, stage: ConnectionStage) -> None:
        stage.connection.ignore(self.span)


@dataclass(frozen=True)
class SlowReader:
    """From now on requests are read in pieces of `size` bytes, `interval` seconds before each."""

    size: int = 1
    interval: float = 0.01

    def play(self, stage: ConnectionStage) -> None:
        stage.connection.read_slowly(self.size, self.interval)


@dataclass(frozen=True)
class WireBytes:
    """Bytes on the socket without any framing; no headers are sent on their account."""

    data: bytes

    def play(self, stage: ConnectionStage) -> None:
        stage.wire(self.data)


@dataclass(frozen=True)
class Cut:
    """The connection's end at once, by a reset or by a FIN.

    Where the client's bytes lie unread, as they may before the first request, the system turns a
    FIN into a reset.
    """

    how: Literal["rst", "fin"]

    def play(self, stage: ConnectionStage) -> None:
        stage.connection.cut(reset=self.how == "rst")
