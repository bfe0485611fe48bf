"""What is known of an answer so far, choice by choice."""

from __future__ import annotations

from typing import TypeVar

from ._answer import AnswerInfo, Choice, ToolCallDelta
from ._chunk import (
    Chunk,
    ChunkChoice,
    Delta,
    Envelope,
    Function,
    PromptLogprobs,
    Usage,
    logprobs_of,
    metrics_of,
    prompt_logprobs_of,
)
from ._chunk_reader import NotAChunk, read_envelope, strange_member, unread_member
from ._errors import StreamingError, shown
from ._events import Token
from ._failures import GARBAGE
from ._metrics import RequestMetrics
from ._tool_calls import Piece, ToolCalls


_NO_ANSWER = ("abort", "error", "cancelled")
"""Finish reasons of requests that the engine gave up. What the caller cancelled has no answer."""


class _ChoiceTally:
    """What is known of one choice."""

    __slots__ = (
        "finish_reason",
        "ids",
        "index",
        "prompt_logprobs",
        "prompt_token_ids",
        "stop_reason",
        "tool_calls",
    )

    def __init__(self) -> None:
        self.index = 0  # of its next Token
        self.ids = 0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.tool_calls: ToolCalls | None = None
        self.prompt_token_ids: list[int] | None = None
        self.prompt_logprobs: PromptLogprobs | None = None

    def take_tool_calls(self, said: Delta) -> list[ToolCallDelta]:
        """The pieces of calls in it."""
        pieces = [_piece(piece.index, piece.id, piece.function) for piece in said.tool_calls or ()]
        if said.function_call is not None:
            pieces.append(_piece(None, None, said.function_call))
        self.tool_calls = self.tool_calls or ToolCalls()
        return self.tool_calls.take(pieces)

    def choice(self, number: int, first: Envelope) -> Choice:
        """How it has ended so far; what `first` tells of the prompt, a chat's choices share."""
        prompt_logprobs = self.prompt_logprobs or first.prompt_logprobs
        return Choice(
            number,
            self.finish_reason,
            self.stop_reason,
            tool_calls=self.tool_calls.so_far(self.finish_reason) if self.tool_calls else [],
            prompt_token_ids=self.prompt_token_ids or first.prompt_token_ids,
            prompt_logprobs=prompt_logprobs_of(prompt_logprobs) if prompt_logprobs else None,
        )


class Tally:
    """Given an answer's chunks, makes its tokens and keeps the rest.

    Args:
        choices: How many choices the request asked for.

    Attributes:
        content: Pieces of content (text, a tool call, reasoning, token ids) that have come.
        begun: Whether the engine has answered, be it with an empty text; then nothing is retried.
        usage: The engine's latest count, or None.
        unread: Where there may be content that is not read, before any was read; or None.
    """

    def __init__(self, choices: int) -> None:
        self.content = 0
        self.begun = False
        self.usage: Usage | None = None
        self._expected = choices
        self._by_ids = 0  # how many more tokens there are by their ids than pieces
        self.unread: str | None = None
        self._strange: str | None = None  # in an event without choices, before any with
        self._choices: dict[int, _ChoiceTally] = {}
        self._first = _NOTHING  # tells of model and prompt
        self._last = _NOTHING  # tells of the engine

    @property
    def silent(self) -> bool:
        """Whether nothing at all was told yet, in any event."""
        return self._last is _NOTHING

    @property
    def tokens_generated(self) -> int:
        """The model's tokens so far: the engine's count, else ids, else one for each `Token`."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return self.content + self._by_ids

    @property
    def choices(self) -> list[Choice]:
        """How each choice has ended so far, by index."""
        known = sorted({0: _ChoiceTally(), **self._choices}.items())
        return [tally.choice(number, self._first) for number, tally in known]

    @property
    def info(self) -> AnswerInfo | None:
        """What the answer says of itself; None before it says anything."""
        first, last = self._first, self._last
        if first is _NOTHING:
            return None
        return AnswerInfo(
            first.model or last.model or None,
            last.system_fingerprint or None,
            first.prompt_text or None,
            last.kv_transfer_params,
            last.ec_transfer_params,
        )

    @property
    def metrics(self) -> RequestMetrics | None:
        """The engine's own times; None if it does not tell them."""
        return metrics_of(self._last.metrics)

    def take(self, chunk: Chunk, payload: bytes | bytearray, tokens: list[Token]) -> None:
        """Add what a chunk brings; its tokens go to the end of the list.

        Args:
            chunk: What was read of the payload.
            payload: Its JSON, of which the first and the last are read again.
            tokens: What has come so far in this read.
        """
        if chunk.choices:
            for choice in chunk.choices:
                self._take_choice(choice, tokens)
            if self._first is _NOTHING:
                self._first = self._last = read_envelope(payload)
            if not self.content and self.unread is None:
                self.unread = unread_member(payload)
        else:
            nothing = chunk.choices is None and chunk.usage is None
            if nothing and not self._choices and self._strange is None:
                self._strange = strange_member(payload)
            self._last = _newer(self._last, read_envelope(payload))
        if chunk.usage is not None:
            self.usage = chunk.usage if self.usage is None else _newer(self.usage, chunk.usage)

    def _take_choice(self, choice: ChunkChoice, tokens: list[Token]) -> None:
        tally = self._choices.get(choice.index)
        if tally is None:
            tally = self._new_choice(choice.index)
        text = choice.text
        reasoning = refusal = calls = None
        said = choice.delta
        if choice.message is not None:
            said = _said(choice.message, said, tally)
        if said is not None:
            if not text:
                text = said.content
            elif said.content and said.content != text:
                raise NotAChunk("text and content stand side by side and differ")
            reasoning = said.reasoning or said.reasoning_content or None
            refusal = said.refusal or None
            if said.tool_calls or said.function_call is not None:
                calls = tally.take_tool_calls(said) or None
        ids = choice.token_ids
        logprobs = None if choice.logprobs is None else logprobs_of(choice.logprobs)
        if text or ids or logprobs or reasoning or calls or refusal:
            self.content += 1
            self.begun = True
            place = tally.index
            tokens.append(
                Token(text or "", place, choice.index, ids, logprobs, reasoning, calls, refusal)
            )
            tally.index = place + 1
            if ids:
                self._by_ids += len(ids) - (1 if tally.ids else place + 1)
                tally.ids += len(ids)
            elif tally.ids:
                self._by_ids -= 1
        if choice.finish_reason:
            tally.finish_reason = choice.finish_reason
            tally.stop_reason = None if choice.stop_reason == "" else choice.stop_reason
            if choice.finish_reason not in _NO_ANSWER:
                self.begun = True
        if choice.prompt_token_ids is not None:
            tally.prompt_token_ids = choice.prompt_token_ids
        if choice.prompt_logprobs is not None:
            tally.prompt_logprobs = choice.prompt_logprobs

    def _new_choice(self, index: int) -> _ChoiceTally:
        if not 0 <= index < self._expected:
            raise NotAChunk(f"choice {shown(index)} came, and the task asked for {self._expected}")
        tally = self._choices[index] = _ChoiceTally()
        return tally

    def check_not_aborted(self) -> None:
        """Raises `StreamingError` if the engine gave a choice up."""
        reasons = {tally.finish_reason for tally in self._choices.values()}
        for reason in _NO_ANSWER:
            if reason in reasons:
                raise StreamingError(f"engine aborted the request (finish_reason {reason})")

    def check_read(self) -> None:
        """Raises `StreamingError` if there was content of a kind that is not read, and no other."""
        if self.unread and not self.content:
            raise GARBAGE.error(f"engine sent its answer in {self.unread}, which is not read")

    def check_finished(self) -> None:
        """The verdict on an answer that has come to its end.

        Raises:
            StreamingError: The engine gave it up, a choice lacks a finish_reason, or there was
                content of a kind that is not read, and no other.
        """
        self.check_not_aborted()
        self.check_read()
        if self._strange is not None and not self._choices:
            raise GARBAGE.error(
                f"engine sent events with {self._strange} and without choices: this is no answer "
                "of vLLM's"
            )
        finished = sum(tally.finish_reason is not None for tally in self._choices.values())
        if finished < self._expected:
            raise StreamingError(
                f"answer is incomplete: {self._expected - finished} of {self._expected} choices "
                "had no finish_reason"
            )


_NOTHING = Envelope()


def _piece(index: int | None, id: str | None, function: Function | None) -> Piece:
    name = function.name if function is not None else None
    arguments = function.arguments if function is not None else None
    return Piece(index, id or None, name or None, arguments or "")


def _said(message: Delta, delta: Delta | None, tally: _ChoiceTally) -> Delta:
    """What a choice says that has a `message`, in a stream perhaps beside a `delta`.

    After deltas, a message beside the last one is the whole answer once more.
    """
    if delta is None:
        return message
    return delta if tally.index else _newer(message, delta)


def facts_of(answer: Tally | None) -> tuple[list[Choice], AnswerInfo | None]:
    """What is known of an attempt's answer, if the engine accepted one."""
    return ([], None) if answer is None else (answer.choices, answer.info)


S = TypeVar("S", Delta, Envelope, Usage)


def _newer(before: S, now: S) -> S:
    """What is known now: a fact that has come stays when a later event does not repeat it."""
    for name in now.__struct_fields__:
        if getattr(now, name) in (None, ""):
            setattr(now, name, getattr(before, name))
    return now
