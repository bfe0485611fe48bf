"""What is known of an answer so far, choice by choice."""

from __future__ import annotations

from ._answer import AnswerInfo, Choice, ToolCall, ToolCallDelta
from ._chunk import (
    Chunk,
    ChunkChoice,
    Envelope,
    PromptLogprobs,
    Usage,
    logprobs_of,
    metrics_of,
    prompt_logprobs_of,
    read_envelope,
    tool_calls_of,
)
from ._errors import StreamingError
from ._events import Token
from ._metrics import RequestMetrics


_NO_ANSWER = ("abort", "error")
"""Finish reasons of requests that the engine gave up."""


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
        self.tool_calls: dict[int, ToolCall] | None = None
        self.prompt_token_ids: list[int] | None = None
        self.prompt_logprobs: PromptLogprobs | None = None

    def add_tool_calls(self, pieces: list[ToolCallDelta]) -> None:
        if self.tool_calls is None:
            self.tool_calls = {}
        for piece in pieces:
            self.tool_calls.setdefault(piece.index, ToolCall())._add(piece)

    def choice(self, number: int, first: Envelope) -> Choice:
        """How it has ended so far; what `first` tells of the prompt, a chat's choices share."""
        calls = self.tool_calls or {}
        prompt_logprobs = self.prompt_logprobs or first.prompt_logprobs
        return Choice(
            number,
            self.finish_reason,
            self.stop_reason,
            tool_calls=[calls[index]._so_far(self.finish_reason) for index in sorted(calls)],
            prompt_token_ids=self.prompt_token_ids or first.prompt_token_ids,
            prompt_logprobs=prompt_logprobs_of(prompt_logprobs) if prompt_logprobs else None,
        )


class Tally:
    """Given an answer's chunks, makes its tokens and keeps the rest.

    Args:
        choices: How many choices the request asked for.

    Attributes:
        content: Pieces of content (text, a tool call, reasoning, token ids) that have come.
        usage: The engine's latest count, or None.
    """

    def __init__(self, choices: int) -> None:
        self.content = 0
        self.usage: Usage | None = None
        self._expected = choices
        self._choices: dict[int, _ChoiceTally] = {}
        self._first = _NOTHING  # tells of model and prompt
        self._last = _NOTHING  # tells of the engine

    @property
    def begun(self) -> bool:
        """Whether the engine has answered, be it with an empty text; then nothing is retried."""
        return self.content > 0 or any(
            tally.finish_reason not in (None, *_NO_ANSWER) for tally in self._choices.values()
        )

    @property
    def tokens_generated(self) -> int:
        """The model's tokens so far: the engine's count, else ids, else one for each `Token`."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return sum(tally.ids or tally.index for tally in list(self._choices.values()))

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
            first.model,
            last.system_fingerprint,
            first.prompt_text,
            last.kv_transfer_params,
            last.ec_transfer_params,
        )

    @property
    def metrics(self) -> RequestMetrics | None:
        """The engine's own times; None if it does not tell them."""
        return metrics_of(self._last.metrics)

    def take(self, chunk: Chunk, payload: bytes | bytearray | str, tokens: list[Token]) -> None:
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
        else:
            self._last = read_envelope(payload)
        if chunk.usage is not None:
            self.usage = chunk.usage

    def _take_choice(self, choice: ChunkChoice, tokens: list[Token]) -> None:
        tally = self._choices.get(choice.index)
        if tally is None:
            tally = self._choices[choice.index] = _ChoiceTally()
        text = choice.text
        reasoning = calls = None
        if text is None and (said := choice.delta or choice.message) is not None:
            text = said.content
            reasoning = said.reasoning or said.reasoning_content or None
            if said.tool_calls:
                calls = tool_calls_of(said)
                tally.add_tool_calls(calls)
        ids = choice.token_ids
        logprobs = None if choice.logprobs is None else logprobs_of(choice.logprobs)
        if text or ids or logprobs or reasoning or calls:
            self.content += 1
            place = tally.index
            tokens.append(Token(text or "", place, choice.index, ids, logprobs, reasoning, calls))
            tally.index = place + 1
            if ids:
                tally.ids += len(ids)
        if choice.finish_reason is not None:
            tally.finish_reason = choice.finish_reason
            tally.stop_reason = choice.stop_reason
        if choice.prompt_token_ids is not None:
            tally.prompt_token_ids = choice.prompt_token_ids
        if choice.prompt_logprobs is not None:
            tally.prompt_logprobs = choice.prompt_logprobs

    def check_not_aborted(self) -> None:
        """Raises `StreamingError` if the engine gave a choice up."""
        reasons = {tally.finish_reason for tally in self._choices.values()}
        for reason in _NO_ANSWER:
            if reason in reasons:
                raise StreamingError(f"engine aborted the request (finish_reason {reason})")

    def check_finished(self) -> None:
        """The verdict on an answer that has come to its end.

        Raises:
            StreamingError: The engine gave it up, or a choice lacks a finish_reason.
        """
        self.check_not_aborted()
        finished = sum(tally.finish_reason is not None for tally in self._choices.values())
        wanted = max(self._expected, len(self._choices))
        if finished < wanted:
            raise StreamingError(
                f"answer is incomplete: {wanted - finished} of {wanted} choices "
                "had no finish_reason"
            )


_NOTHING = Envelope()
