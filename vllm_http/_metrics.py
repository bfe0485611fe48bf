"""What one task cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ._values import Value


@dataclass(frozen=True)
class SpeculativeDecoding(Value):
    """How well drafts served one request (vLLM 0.32, ``--per-request-spec-decode-metrics``).

    Attributes:
        mean_acceptance_length: Tokens for each step, the one that is always good included.
        draft_acceptance_rate: Of the drafted tokens, 0 to 1.
        acceptance_histogram: How many steps took 0, 1, 2, ... drafted tokens.
        num_spec_steps: Steps that had drafts.
        num_accepted_draft_tokens: Drafted tokens that were good.
        num_draft_tokens: Drafted tokens.
        num_spec_tokens: Drafted for each step at most.
        per_step_accepted: In order, where the server tells it.
        per_step_drafted: In order, where the server tells it.
    """

    mean_acceptance_length: float | None = None
    draft_acceptance_rate: float | None = None
    acceptance_histogram: list[int] = field(default_factory=list)
    num_spec_steps: int | None = None
    num_accepted_draft_tokens: int | None = None
    num_draft_tokens: int | None = None
    num_spec_tokens: int | None = None
    per_step_accepted: list[int] | None = None
    per_step_drafted: list[int] | None = None


@dataclass(frozen=True)
class RequestMetrics(Value):
    """The engine's own times of one request (vLLM 0.32, ``--enable-per-request-metrics``).

    It tells them for one prompt and ``n=1`` only. In milliseconds.

    Attributes:
        time_to_first_token_ms: From being scheduled to the first token; without the queue.
        queue_time_ms: Before being scheduled.
        generation_time_ms: From the first token to the last.
        mean_itl_ms: Between two tokens, on average.
        tokens_per_second: As the engine counts them.
        speculative_decoding: Where the server tells it.
    """

    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None
    queue_time_ms: float | None = None
    mean_itl_ms: float | None = None
    tokens_per_second: float | None = None
    speculative_decoding: SpeculativeDecoding | None = None


@dataclass(frozen=True)
class Metrics(Value):
    """What one task cost. Times are in milliseconds, and None where the moment never came.

    Attributes:
        tokens_generated: The model's tokens, over all choices.
        tokens_in: The prompt's tokens, when the engine reported them.
        cached_tokens: Prompt tokens taken from the prefix cache, when the engine reported them
            (vLLM does with ``--enable-prompt-tokens-details``).
        created_cache_tokens: Prompt tokens put into the prefix cache, when the engine says so.
        multimodal_tokens: Prompt tokens that stand for images and the like, by kind.
        reasoning_tokens: Of those generated, when the engine reported them (with a reasoning
            parser).
        usage_source: ``"engine"`` when the counts are the engine's usage, ``"client"`` when they
            were counted here (as with `TaskRequest.include_usage` False): exact where token ids
            came along, else one for each `Token`, which is a lower bound, since an engine may
            merge several tokens into one event.
        latency_first_token_ms: From the request on the wire to the first content, in the attempt
            that served; vLLM's time to first token.
        decode_time_ms: From the first content to the last.
        queue_time_ms: From `submit` until a worker took the task.
        total_time_ms: From `submit` to the end, waiting and retries included.
        engine: The engine's own times, when it tells them.
        attempts: Tries at the engine; 0 if none was made. A request that met a dead kept
            connection and went out once more counts as two, so that there may be one more of them
            than `RetryPolicy.attempts`.
    """

    tokens_generated: int = 0
    tokens_in: int | None = None
    cached_tokens: int | None = None
    usage_source: Literal["engine", "client"] = "client"
    latency_first_token_ms: float | None = None
    decode_time_ms: float | None = None
    queue_time_ms: float | None = None
    total_time_ms: float | None = None
    attempts: int = 0
    created_cache_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None
    reasoning_tokens: int | None = None
    engine: RequestMetrics | None = None
