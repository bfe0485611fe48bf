"""What of vLLM's JSON is read: chunks of a stream, and whole answers. The rest is skipped."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from ._answer import Logprob, PromptLogprob, ToolCallDelta, TopLogprob
from ._metrics import RequestMetrics


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None  # absent from whole answers
    id: str | None = None
    function: _Function | None = None


class Delta(msgspec.Struct, gc=False):
    """What a chat's choice has to say."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # before vLLM 0.12 or so
    tool_calls: list[_ToolCall] | None = None


class Logprobs(msgspec.Struct, gc=False):
    """In a chat's form, `content`, or in that of a prompt's answer, four lists side by side."""

    content: list[Logprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class _PromptLogprob(msgspec.Struct, gc=False):
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PromptLogprobs: TypeAlias = list[dict[int, _PromptLogprob] | None]


class ChunkChoice(msgspec.Struct, gc=False):
    """One choice's part of a chunk, or all of it in a whole answer."""

    index: int = 0
    text: str | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """The engine's own count of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream, or a whole answer: what every one of them is read for."""

    choices: list[ChunkChoice] | None = None
    usage: Usage | None = None
    error: Any = None


class Envelope(msgspec.Struct):
    """The rest of the same JSON, which is read of the first event and the last."""

    model: str | None = None
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | None = None  # a chat's
    prompt_logprobs: PromptLogprobs | None = None  # a chat's
    prompt_text: str | None = None
    metrics: Any = None
    kv_transfer_params: dict[str, Any] | None = None
    ec_transfer_params: dict[str, Any] | None = None


class FlatError(msgspec.Struct):
    """An error as vLLM before 0.10.1 wrote it."""

    object: Any = None
    message: Any = None
    code: Any = None


read_chunk = msgspec.json.Decoder(Chunk).decode
read_envelope = msgspec.json.Decoder(Envelope).decode
read_flat_error = msgspec.json.Decoder(FlatError).decode

NOT_A_CHUNK = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What the readers raise. Its text names types and offsets, never content."""


def metrics_of(found: Any) -> RequestMetrics | None:
    """The engine's own times; None where they are in a form of another version."""
    try:
        return msgspec.convert(found, RequestMetrics)
    except NOT_A_CHUNK:
        return None


def logprobs_of(found: Logprobs) -> list[Logprob] | None:
    """One for each token, whichever form they came in; None for none."""
    if found.content:
        return found.content
    if not found.tokens:
        return None
    missing = [None] * len(found.tokens)
    return [
        Logprob(token, logprob, None, [TopLogprob(*pair) for pair in (top or {}).items()], offset)
        for token, logprob, top, offset in zip(
            found.tokens,
            found.token_logprobs or missing,
            found.top_logprobs or missing,
            found.text_offset or missing,
            strict=False,
        )
    ]


def prompt_logprobs_of(found: PromptLogprobs) -> list[list[PromptLogprob] | None]:
    """One list for each token of the prompt."""
    return [None if place is None else _of_place(place) for place in found]


def _of_place(place: dict[int, _PromptLogprob]) -> list[PromptLogprob]:
    return [
        PromptLogprob(token, one.logprob, one.rank, one.decoded_token)
        for token, one in place.items()
    ]


def tool_calls_of(delta: Delta) -> list[ToolCallDelta]:
    """The pieces of its calls."""
    pieces = []
    for position, call in enumerate(delta.tool_calls or ()):
        function = call.function or _Function()
        index = position if call.index is None else call.index
        pieces.append(ToolCallDelta(index, call.id, function.name, function.arguments or ""))
    return pieces
