"""Bytes of a vLLM stream to tokens, finish reasons, usage and a verdict. No I/O.

Pushed with bytes, however they are split. What ends a stream honestly is a finish_reason for every
choice *and* ``[DONE]``: vLLM sends ``[DONE]`` after errors as well, and a cut connection may end on
a whole event.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from ._errors import StreamingError, WorkerError
from ._events import Choice, Token
from ._redact import Redactor
from ._refusal import refusal_in_stream
from ._sse import EventFramer


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # before vLLM 0.12 or so
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    logprobs: dict[str, Any] | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """The engine's own count of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class _FlatError(msgspec.Struct):
    """An error as vLLM before 0.10.1 wrote it."""

    object: Any = None
    message: Any = None
    code: Any = None


_NO_ANSWER = ("abort", "error")
"""Finish reasons of requests that the engine gave up."""


class _Tally:
    """What is known of one choice."""

    __slots__ = ("finish_reason", "ids", "index", "stop_reason")

    def __init__(self) -> None:
        self.index = 0
        self.ids = 0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None


class Decoder:
    """One attempt's answer.

    Args:
        choices: How many choices the request asked for.
        max_event_bytes: The largest event that is accepted.
        redact: Applied to the engine's own error text.

    Attributes:
        content: Pieces of content (text, a tool call, reasoning, token ids) that have come.
        done: Whether ``[DONE]`` has come.
        failure: Why nothing more will be decoded, or None.
        usage: The engine's latest count, or None.
    """

    _decode_chunk = msgspec.json.Decoder(_Chunk).decode

    def __init__(self, *, choices: int, max_event_bytes: int, redact: Redactor) -> None:
        self.content = 0
        self.done = False
        self.failure: WorkerError | None = None
        self.usage: Usage | None = None
        self._redact = redact
        self._framer = EventFramer(max_event_bytes)
        self._expected = choices
        self._tallies: dict[int, _Tally] = {}

    @property
    def over(self) -> bool:
        """Whether more bytes would change nothing."""
        return self.done or self.failure is not None

    @property
    def begun(self) -> bool:
        """Whether the engine has answered, be it with an empty text; then nothing is retried."""
        return self.content > 0 or any(
            tally.finish_reason not in (None, *_NO_ANSWER) for tally in self._tallies.values()
        )

    @property
    def tokens_generated(self) -> int:
        """The model's tokens so far: the engine's count, else ids, else one for each `Token`."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return sum(tally.ids or tally.index for tally in list(self._tallies.values()))

    @property
    def choices(self) -> list[Choice]:
        """How each choice has ended so far, by index."""
        return [
            Choice(index, tally.finish_reason, tally.stop_reason)
            for index, tally in sorted({0: _Tally(), **self._tallies}.items())
        ]

    def feed(self, chunk: bytes) -> list[Token]:
        """The tokens in these bytes, in order. Tokens before a failure are returned too."""
        tokens: list[Token] = []
        if self.over:
            return tokens
        payloads = self._framer.feed(chunk)
        try:
            for payload in payloads:
                if payload in (b"[DONE]", "[DONE]"):
                    self.done = True
                    return tokens
                parsed = self._decode_chunk(payload)
                if parsed.choices and parsed.error is None:
                    for choice in parsed.choices:
                        self._take_choice(choice, tokens)
                elif not self._take_rest(parsed, payload):
                    return tokens
                if parsed.usage is not None:
                    self.usage = parsed.usage
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as failure:
            # The failure's text names types and offsets, never content.
            self._fail(f"an event that is not a chunk of vLLM's: {failure}")
            return tokens
        if self._framer.failure:
            self._fail(self._framer.failure)
        return tokens

    def finish(self) -> None:
        """The verdict, once `over` or at the end of the body.

        Raises:
            WorkerError: The stream did not end honestly.
        """
        if self.failure is not None:
            raise self.failure
        reasons = {index: tally.finish_reason for index, tally in self._tallies.items()}
        for reason in _NO_ANSWER:
            if reason in reasons.values():
                raise StreamingError(f"engine aborted the request (finish_reason {reason})")
        if not self.done:
            left = self._framer.unfinished
            if (refusal := self._refusal_without_framing(left)) is not None:
                raise refusal
            inside = f", {len(left)} bytes into an event" if left else ""
            raise StreamingError(f"stream was cut: it ended without [DONE]{inside}")
        finished = sum(reason is not None for reason in reasons.values())
        wanted = max(self._expected, len(reasons))
        if finished < wanted:
            raise StreamingError(
                f"stream is incomplete: [DONE] came and {wanted - finished} of {wanted} choices "
                "had no finish_reason"
            )

    def _refusal_without_framing(self, left: bytes) -> WorkerError | None:
        """What a gateway says that puts its error as plain JSON into an event stream."""
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
            error = self._decode_chunk(left).error
            if error is not None:
                return refusal_in_stream(error, self._redact)
        return None

    def _fail(self, what: str) -> None:
        self.failure = StreamingError(f"engine sent {what}", retriable=False)

    def _take_rest(self, chunk: _Chunk, payload: bytes | str) -> bool:
        """Look for an error in an event without choices; False if it is one."""
        error = chunk.error
        if error is None and chunk.choices is None and chunk.usage is None:
            flat = msgspec.json.decode(payload, type=_FlatError)
            if flat.object == "error":
                error = {"message": flat.message, "code": flat.code}
        if error is not None:
            self.failure = refusal_in_stream(error, self._redact)
        return error is None

    def _take_choice(self, choice: _Choice, tokens: list[Token]) -> None:
        tally = self._tallies.get(choice.index)
        if tally is None:
            tally = self._tallies[choice.index] = _Tally()
        text = choice.text
        if text is None:
            delta = choice.delta
            if delta is not None:
                text = delta.content
                if delta.tool_calls or delta.reasoning or delta.reasoning_content:
                    self.content += 1
        if text or choice.token_ids or choice.logprobs:
            self.content += 1
            ids = choice.token_ids
            tokens.append(Token(text or "", tally.index, choice.index, ids, choice.logprobs))
            tally.index += 1
            if ids:
                tally.ids += len(ids)
        if choice.finish_reason is not None:
            tally.finish_reason = choice.finish_reason
            tally.stop_reason = choice.stop_reason
