"""What the scripts of the matrix share: whole answers, step by step and byte by byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate

from decoding import DONE, text
from support import Drip

from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    Finish,
    Headers,
    Raw,
    Stage,
    Stall,
    Step,
    Text,
    Usage,
    WireBytes,
)


# By steps.
AB = (Text("a"), Text("b"))
ALL_BUT_DONE = (*AB, Finish("stop"), Usage())
WHOLE = (*ALL_BUT_DONE, Done())

# By bytes.
A, B, STOP = text("a"), text("b"), text("", "stop")
BODY = A + B + STOP + DONE
STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
TYPE = b"content-type: text/event-stream; charset=utf-8\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
HEAD = STATUS_LINE + TYPE + CHUNKED + b"\r\n"

COMMENTS = Drip(b"e\r\n: keep-alive\n\n\r\n")
"""SSE comments for ever, each an HTTP chunk of its own."""


def raw(*pieces: bytes) -> list[Step]:
    """These pieces of a body, each an HTTP chunk."""
    return [Raw(piece) for piece in pieces]


def coded(encoding: str, *pieces: bytes) -> list[Step]:
    """A stream in a content encoding."""
    return [Headers(headers={"content-encoding": encoding}), *raw(*pieces)]


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """A whole chunked body of these pieces."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return chunks + b"0\r\n" + trailers + b"\r\n"


def single(data: bytes) -> list[bytes]:
    """The bytes, one by one."""
    return [data[i : i + 1] for i in range(len(data))]


def sent_one_by_one(data: bytes) -> list[Step]:
    """These bytes on the socket, each on its own."""
    return [WireBytes(byte) for byte in single(data)]


def with_comments(steps: Iterable[Step]) -> list[Step]:
    """A comment before each step."""
    return [one for step in steps for one in (Comment(), step)]


@dataclass(frozen=True)
class FullUntil:
    """A step that refuses with a Retry-After that is a date, so many seconds from now."""

    seconds: float

    def play(self, stage: Stage) -> None:
        date = formatdate(time.time() + self.seconds, usegmt=True)
        stage.answer.whole(429, None, {"retry-after": date})


@dataclass(frozen=True)
class Long:
    """A step that sends one long piece of a body, made when it is due."""

    begin: bytes
    size: int
    end: bytes = b"\n\n"

    def play(self, stage: Stage) -> None:
        stage.answer.chunk(self.begin + b"x" * self.size + self.end)


@dataclass(frozen=True)
class AtOnce:
    """A step that plays others, and puts on the socket in one write what they write one by one."""

    steps: Sequence[Step]

    def play(self, stage: Stage) -> None:
        kept = bytearray()

        def keep(send: Callable[[bytes], None], data: bytes) -> None:
            kept.extend(data)

        for step in self.steps:
            if isinstance(step, (Cut, Stall, Drip)):  # what never comes back
                stage.connection.send(bytes(kept))
                step.play(stage)
            with stage.connection.sending_by(keep):
                step.play(stage)
        with stage.connection.sending_by(keep):
            stage.answer.end()
        stage.connection.send(bytes(kept))
