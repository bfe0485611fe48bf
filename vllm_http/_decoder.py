"""Bytes of a vLLM answer to tokens, finish reasons, usage and a verdict. No I/O.

Pushed with bytes, however they are split. What ends a stream honestly is a finish_reason for every
choice *and* ``[DONE]``: vLLM sends ``[DONE]`` after errors as well, and a cut connection may end on
a whole event.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

from ._chunk import NOT_A_CHUNK, Chunk, read_chunk, read_flat_error
from ._errors import StreamingError, WorkerError
from ._events import Token
from ._redact import Redactor
from ._refusal import refusal_in_stream
from ._sse import EventFramer
from ._tally import Tally


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

    def feed(self, chunk: bytes) -> list[Token]:
        tokens: list[Token] = []
        if self.over:
            return tokens
        payloads = self._framer.feed(chunk)
        try:
            for payload in payloads:
                if payload in (b"[DONE]", "[DONE]"):
                    self.done = True
                    return tokens
                parsed = read_chunk(payload)
                if not parsed.choices or parsed.error is not None:
                    self.failure = self._refusal(parsed, payload)
                    if self.failure is not None:
                        return tokens
                self.take(parsed, payload, tokens)
        except NOT_A_CHUNK as failure:
            self._fail(f"an event that is not a chunk of vLLM's: {failure}")
            return tokens
        if self._framer.failure:
            self._fail(self._framer.failure)
        return tokens

    def finish(self) -> None:
        if self.failure is None and not self.done:
            self._check_cut()
        super().finish()

    def _check_cut(self) -> None:
        """The body ended without ``[DONE]``."""
        self.check_not_aborted()
        left = self._framer.unfinished
        if (refusal := self._refusal_without_framing(left)) is not None:
            raise refusal
        inside = f", {len(left)} bytes into an event" if left else ""
        raise StreamingError(f"stream was cut: it ended without [DONE]{inside}")

    def _refusal_without_framing(self, left: bytes) -> WorkerError | None:
        """What a gateway says that puts its error as plain JSON into an event stream."""
        with contextlib.suppress(*NOT_A_CHUNK):
            error = read_chunk(left).error
            if error is not None:
                return refusal_in_stream(error, self._redact)
        return None

    def _refusal(self, chunk: Chunk, payload: bytes | str) -> WorkerError | None:
        """The error that an event holds, if it is one."""
        error = chunk.error
        if error is None and chunk.choices is None and chunk.usage is None:
            flat = read_flat_error(payload)
            if flat.object == "error":
                error = {"message": flat.message, "code": flat.code}
        return None if error is None else refusal_in_stream(error, self._redact)


class DocumentDecoder(AnswerDecoder):
    """An answer as one JSON document, for what vLLM does not stream; one token a choice."""

    def __init__(self, *, choices: int, max_event_bytes: int, redact: Redactor) -> None:
        super().__init__(choices=choices, max_event_bytes=max_event_bytes, redact=redact)
        self._body = bytearray()

    def feed(self, chunk: bytes) -> list[Token]:
        tokens: list[Token] = []
        self._body += chunk
        if len(self._body) > self._max_bytes:
            self._fail(f"an answer of more than {self._max_bytes} bytes")
        elif not chunk and not self.over:
            self._read(tokens)
        return tokens

    def _read(self, tokens: list[Token]) -> None:
        try:
            answer = read_chunk(self._body)
        except NOT_A_CHUNK as failure:
            if "truncated" in str(failure):  # the body ended before its Content-Length
                self.failure = StreamingError("answer was cut: it ended before its JSON")
            else:
                self._fail(f"an answer that is not vLLM's: {failure}")
            return
        if answer.error is not None:
            self.failure = refusal_in_stream(answer.error, self._redact)
            return
        self.take(answer, self._body, tokens)
        self.done = True
