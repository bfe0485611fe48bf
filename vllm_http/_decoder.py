"""Bytes of a vLLM answer to tokens, finish reasons, usage and a verdict. No I/O.

Pushed with bytes, however they are split. What ends a stream honestly is a finish_reason for every
choice *and* ``[DONE]``: vLLM sends ``[DONE]`` after errors as well, and a cut connection may end on
a whole event.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

from ._chunk import Chunk
from ._chunk_reader import (
    NOT_A_CHUNK,
    read_chunk,
    read_leniently,
    read_strictly,
    read_value,
)
from ._errors import StreamingError, WorkerError, shown
from ._events import Token
from ._redact import Redactor
from ._refusal import refusal_in_stream, refusal_of_event
from ._refusal_forms import error_in
from ._sse import BOM, EventFramer
from ._tally import Tally


_HEAD = 64
"""Bytes of a body that are kept until there is content: they tell what a body is that has none."""


class AnswerDecoder(Tally, ABC):
    """One attempt's answer, in whatever form.

    Args:
        choices: How many choices the request asked for.
        max_event_bytes: The largest event, or document, that is accepted.
        redact: Applied to the engine's own error text.

    Attributes:
        done: Whether the engine has said that this was all.
        failure: Why nothing more will be decoded, or None.
    """

    def __init__(self, *, choices: int, max_event_bytes: int, redact: Redactor) -> None:
        super().__init__(choices)
        self.done = False
        self.failure: WorkerError | None = None
        self._max_bytes = max_event_bytes
        self._redact = redact

    @property
    def over(self) -> bool:
        """Whether more bytes would change nothing."""
        return self.done or self.failure is not None

    @abstractmethod
    def feed(self, chunk: bytes) -> list[Token]:
        """The tokens in these bytes, in order; empty bytes are the end of the body.

        Tokens before a failure are returned too.
        """

    def finish(self) -> None:
        """The verdict, once `over` or at the end of the body.

        Raises:
            WorkerError: The answer did not end honestly.
        """
        if self.failure is not None:
            raise self.failure
        self.check_finished()

    def _fail(self, what: str) -> None:
        self.failure = StreamingError(f"engine sent {what}", retriable=False)


class Decoder(AnswerDecoder):
    """An answer as a stream of events."""

    def __init__(self, *, choices: int, max_event_bytes: int, redact: Redactor) -> None:
        super().__init__(choices=choices, max_event_bytes=max_event_bytes, redact=redact)
        self._framer = EventFramer(max_event_bytes)
        self._head = b""

    def feed(self, chunk: bytes) -> list[Token]:
        tokens: list[Token] = []
        if self.over:
            return tokens
        if not self.content and len(self._head) < _HEAD:
            self._head += chunk[:_HEAD]
        payloads = self._framer.feed(chunk)
        try:
            for payload in payloads:
                try:
                    parsed = read_strictly(payload)
                except NOT_A_CHUNK as failure:
                    if _is_done(payload):
                        self.done = True
                        return tokens
                    parsed = read_leniently(payload, Chunk, failure)
                if not parsed.choices or parsed.error is not None:
                    self.failure = self._refusal(parsed, payload)
                self.take(parsed, payload, tokens)
                if self.failure is not None:
                    return tokens
            if self._framer.error is not None:
                self.failure = refusal_of_event(self._framer.error, self._redact, begun=self.begun)
        except NOT_A_CHUNK as failure:
            if self.failure is None:
                self._fail(f"an event that is not a chunk of vLLM's: {failure}")
            return tokens
        if self._framer.failure:
            self._fail(self._framer.failure)
        return tokens

    def finish(self) -> None:
        if self.failure is None and not self.done:
            self._read_rest()
        super().finish()

    def check_read(self) -> None:
        if self._framer.skipped is not None:
            self.unread = self._redact(f"events of type {shown(self._framer.skipped)}")
        super().check_read()

    def _read_rest(self) -> None:
        """The body ended without ``[DONE]``, or without the blank line behind it."""
        rest = self._framer.rest()
        if rest and _is_done(rest[0]):
            self.done = True
            return
        self.check_not_aborted()
        left = self._framer.unfinished
        if (refusal := self._refusal_in_rest(rest, left)) is not None:
            raise refusal
        self.check_read()
        if self.silent and self._head.lstrip().startswith((b"{", b"[")):
            self._fail(
                "one JSON document instead of a stream of events; a gateway that collects answers "
                "or drops `stream` has to let them through"
            )
            return
        inside = f", {len(left)} bytes into an event" if left else ""
        raise StreamingError(f"stream was cut: it ended without [DONE]{inside}")

    def _refusal_in_rest(self, rest: list[bytes], left: bytes) -> WorkerError | None:
        """An error in what was left; a gateway may have put it there without any framing."""
        with contextlib.suppress(*NOT_A_CHUNK):
            if self._framer.error is not None:
                return refusal_of_event(self._framer.error, self._redact, begun=self.begun)
            payload = rest[0] if rest else left
            return self._refusal(read_chunk(payload), payload)
        return None

    def _refusal(self, chunk: Chunk, payload: bytes) -> WorkerError | None:
        """The error that an event holds, if it is one."""
        error = error_in(read_value(payload)) if _may_be_error(chunk) else None
        return None if error is None else refusal_in_stream(error, self._redact, begun=self.begun)


def _may_be_error(chunk: Chunk) -> bool:
    """Whether it is worth while to read it again: it is one, or has nothing of an answer."""
    return bool(chunk.error) or (chunk.choices is None and chunk.usage is None)


def _is_done(payload: bytes) -> bool:
    return payload.strip() == b"[DONE]"


class DocumentDecoder(AnswerDecoder):
    """An answer as one JSON document, for what vLLM does not stream; one token a choice."""

    def __init__(self, *, choices: int, max_event_bytes: int, redact: Redactor) -> None:
        super().__init__(choices=choices, max_event_bytes=max_event_bytes, redact=redact)
        self._body = bytearray()

    def feed(self, chunk: bytes) -> list[Token]:
        tokens: list[Token] = []
        self._body += chunk
        if len(self._body) > self._max_bytes:
            self._fail(
                f"an answer of more than {self._max_bytes} bytes; "
                "raise max_event_bytes to let it through"
            )
        elif not chunk and not self.over:
            self._read(tokens)
        return tokens

    def _read(self, tokens: list[Token]) -> None:
        try:
            if self._body.startswith(BOM):
                del self._body[: len(BOM)]
            answer = read_chunk(self._body)
            error = error_in(read_value(self._body)) if _may_be_error(answer) else None
            if error is not None:
                self.failure = refusal_in_stream(error, self._redact)
                return
            self.take(answer, self._body, tokens)
            self.done = True
        except NOT_A_CHUNK as failure:
            if "truncated" in str(failure):  # the body ended before its Content-Length
                self.failure = StreamingError("answer was cut: it ended before its JSON")
            else:
                self._fail(f"an answer that is not vLLM's: {failure}")
