"""What of vLLM's JSON is read: chunks of a stream, and whole answers. The rest is skipped.

`_chunk_reader` reads them. Every field may be null or missing.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any, TypeAlias

import msgspec

from ._answer import Logprob, PromptLogprob, TopLogprob
from ._metrics import RequestMetrics


class Function(msgspec.Struct, gc=False):
    """A piece of a call of a function."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPiece(msgspec.Struct, gc=False):
    """The same, and of which call it is."""

    index: int | None = None  # absent from whole answers
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct, gc=False):
    """What a chat's choice has to say."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # before vLLM 0.12 or so
    tool_calls: list[ToolCallPiece] | None = None
    refusal: str | None = None
    function_call: Function | None = None  # OpenAI's before tool_calls; some gateways keep to it


class Logprobs(msgspec.Struct, gc=False):
    """In a chat's form, `content`, or in that of a prompt's answer, four lists side by side."""

    content: list[Logprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    text_offset: list[int] | None = None


class _PromptLogprob(msgspec.Struct, gc=False):
    logprob: float | None = None
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


class PromptDetails(msgspec.Struct):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None


class CompletionDetails(msgspec.Struct):
    """Of the tokens that were made."""

    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """The engine's own count of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


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


def metrics_of(found: Any) -> RequestMetrics | None:
    """The engine's own times; None where they are in a form of another version."""
    if found is None:
        return None
    try:
        return msgspec.convert(found, RequestMetrics)
    except msgspec.ValidationError:
        return None


def logprobs_of(found: Logprobs) -> list[Logprob] | None:
    """One for each token, whichever form they came in; None for none."""
    if found.content:
        return found.content
    if not found.tokens:
        return None
    return [
        Logprob(token, logprob, None, [TopLogprob(*pair) for pair in (top or {}).items()], offset)
        for token, logprob, top, offset in zip(
            found.tokens,
            chain(found.token_logprobs or (), repeat(None)),
            chain(found.top_logprobs or (), repeat(None)),
            chain(found.text_offset or (), repeat(None)),
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
