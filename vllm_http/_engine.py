"""What is known of an engine: its health, its properties, its load."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ._values import Value


class HealthState(str, Enum):
    """Whether to send work.

    ``HEALTHY``: /health answers 200 and a model is listed; a busy engine is healthy.
    ``DEGRADED``: it answers, but a user would notice something wrong.
    ``UNHEALTHY``: refused, timed out, or its engine process is dead (503).
    """

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class HealthStatus(Value):
    """A health check's verdict.

    Attributes:
        state: The verdict.
        message: Why, in one sentence.
        latency_ms: How long the check took, in milliseconds.
    """

    state: HealthState
    message: str
    latency_ms: float


@dataclass(frozen=True)
class Model(Value):
    """One entry of the engine's /v1/models.

    Attributes:
        id: The name to put into `TaskRequest.model`.
        max_model_len: The context length in tokens; None for LoRA adapters, whose base model's
            counts.
        root: What it was loaded from.
        parent: The id of its base model if it is a LoRA adapter, else None: so this tells them
            apart.
    """

    id: str
    max_model_len: int | None = None
    root: str | None = None
    parent: str | None = None


@dataclass(frozen=True)
class EngineProps(Value):
    """What an engine is and can do.

    Attributes:
        engine_type: Always ``"vllm"``.
        engine_version: From /version, or ``"unknown"``.
        supports_streaming: Always True.
        supports_sessions: Always False: vLLM keeps no session; `session_id` is for affinity.
        max_batch_size: None: vLLM does not tell.
        models: The ids of the models it serves, LoRA adapters included.
        max_model_len: The context length of the first model, in tokens, if told.
    """

    engine_type: str
    engine_version: str
    supports_streaming: bool = True
    supports_sessions: bool = False
    max_batch_size: int | None = None
    models: list[str] = field(default_factory=list)
    max_model_len: int | None = None


@dataclass(frozen=True)
class EngineMetrics(Value):
    """The engine's own load figures, summed over its data-parallel engines.

    None where the engine does not report one. The gauges of an idle engine are as old as its last
    step; the counters start anew with the server.

    Attributes:
        running: Requests in the batch.
        waiting: Requests in its queue.
        kv_cache_usage: Share of the KV cache in use, 0 to 1; the fullest engine's.
        prefix_cache_queries: Prompt tokens looked up in the prefix cache.
        prefix_cache_hits: Those that were found.
        preemptions: Requests thrown out of the batch for lack of KV cache.
        prompt_tokens: Tokens read.
        generation_tokens: Tokens made.
        spec_decode_drafts: Speculative decoding: how often tokens were guessed. None without it,
            as are the next three; vLLM before its V1 engine did not count these.
        spec_decode_draft_tokens: Tokens guessed.
        spec_decode_accepted_tokens: Those that the model agreed with.
        spec_decode_accepted_per_position: The same by position in the guess, the first one first.
    """

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None
    prefix_cache_queries: int | None = None
    prefix_cache_hits: int | None = None
    preemptions: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    spec_decode_drafts: int | None = None
    spec_decode_draft_tokens: int | None = None
    spec_decode_accepted_tokens: int | None = None
    spec_decode_accepted_per_position: list[int] | None = None

    @property
    def spec_decode_acceptance_rate(self) -> float | None:
        """Share of the guessed tokens that were accepted, 0 to 1; None where none were guessed.

        Since the server's start, as are all counters: for a span of time subtract two readings.
        """
        if not self.spec_decode_draft_tokens or self.spec_decode_accepted_tokens is None:
            return None
        return self.spec_decode_accepted_tokens / self.spec_decode_draft_tokens

    @property
    def spec_decode_mean_acceptance_length(self) -> float | None:
        """Tokens that one step made on average, its own one included: at least 1.

        vLLM's figure of this name. None where nothing was guessed.
        """
        if not self.spec_decode_drafts or self.spec_decode_accepted_tokens is None:
            return None
        return 1 + self.spec_decode_accepted_tokens / self.spec_decode_drafts
