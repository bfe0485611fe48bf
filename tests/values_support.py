"""Hypothesis strategies for the public values, and how two errors are compared."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vllm_http import (
    AdapterClosed,
    AnswerInfo,
    CapacityExceeded,
    Choice,
    Completion,
    End,
    EngineUnavailable,
    Error,
    InvalidRequest,
    Logprob,
    Metrics,
    PromptLogprob,
    RequestMetrics,
    SpeculativeDecoding,
    Started,
    StreamingError,
    Timeout,
    Token,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Unknown,
    WorkerError,
)


PLAIN_ERRORS: tuple[type[WorkerError], ...] = (
    EngineUnavailable,
    InvalidRequest,
    CapacityExceeded,
    StreamingError,
    AdapterClosed,
    Unknown,
)
PHASES = ("queued", "connect", "first_token", "stall", "deadline")
ENVELOPE = ("code", "message", "retriable", "retry_after_ms", "status", "job_id", "partial")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
counts = st.integers(0, 2**40)
millis = st.floats(0, 1e9, allow_nan=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)

token_ids = st.none() | st.lists(st.integers(0, 2**20), max_size=4)
speculative = st.builds(
    SpeculativeDecoding,
    mean_acceptance_length=st.none() | millis,
    acceptance_histogram=st.lists(counts, max_size=3),
    per_step_accepted=token_ids,
)
engine_times = st.builds(
    RequestMetrics,
    time_to_first_token_ms=st.none() | millis,
    tokens_per_second=st.none() | millis,
    speculative_decoding=st.none() | speculative,
)
metrics = st.builds(
    Metrics,
    tokens_generated=counts,
    tokens_in=st.none() | counts,
    cached_tokens=st.none() | counts,
    usage_source=st.sampled_from(["engine", "client"]),
    latency_first_token_ms=st.none() | millis,
    decode_time_ms=st.none() | millis,
    queue_time_ms=st.none() | millis,
    total_time_ms=st.none() | millis,
    attempts=st.integers(0, 9),
    created_cache_tokens=st.none() | counts,
    multimodal_tokens=st.none() | st.dictionaries(text, counts, max_size=2),
    reasoning_tokens=st.none() | counts,
    engine=st.none() | engine_times,
)
reals = st.floats(-1e6, 0)
byte_values = st.none() | st.lists(st.integers(0, 255), max_size=3)
tops = st.builds(TopLogprob, token=text, logprob=st.none() | reals, bytes=byte_values)
logprobs = st.none() | st.lists(
    st.builds(
        Logprob,
        token=text,
        logprob=st.none() | reals,
        bytes=byte_values,
        top_logprobs=st.lists(tops, max_size=2),
        text_offset=st.none() | counts,
    ),
    max_size=2,
)
prompt_logprobs = st.lists(
    st.none()
    | st.lists(
        st.builds(
            PromptLogprob,
            token_id=counts,
            logprob=st.none() | reals,
            rank=st.none() | counts,
            decoded_token=st.none() | text,
        ),
        max_size=2,
    ),
    max_size=2,
)
pieces = st.builds(
    ToolCallDelta, index=counts, id=st.none() | text, name=st.none() | text, arguments=text
)
choices = st.builds(
    Choice,
    index=st.integers(0, 99),
    finish_reason=st.none() | names,
    stop_reason=st.none() | st.integers(0, 2**20) | text,
    text=text,
    token_ids=token_ids,
    reasoning=text,
    tool_calls=st.lists(
        st.builds(ToolCall, id=text, name=text, arguments=text, complete=st.booleans()), max_size=2
    ),
    logprobs=logprobs,
    prompt_token_ids=token_ids,
    prompt_logprobs=st.none() | prompt_logprobs,
    refusal=text,
)
infos = st.builds(
    AnswerInfo,
    model=st.none() | text,
    system_fingerprint=st.none() | text,
    prompt_text=st.none() | text,
    kv_transfer_params=st.none() | st.dictionaries(text, json_values, max_size=2),
)


def errors(partial: st.SearchStrategy[Completion | None]) -> st.SearchStrategy[WorkerError]:
    """Errors of every class with every attribute."""
    details: dict[str, st.SearchStrategy[Any]] = {
        "message": text,
        "code": st.none() | names,
        "retriable": st.none() | st.booleans(),
        "retry_after_ms": st.none() | counts,
        "status": st.none() | st.integers(100, 999),
        "job_id": st.none() | names,
        "partial": partial,
    }
    plain = [st.builds(kind, **details) for kind in PLAIN_ERRORS]
    return st.one_of(*plain, st.builds(Timeout, phase=st.sampled_from(PHASES), **details))


def completions(
    error: st.SearchStrategy[WorkerError | None],
) -> st.SearchStrategy[Completion]:
    """Completions of every shape."""
    return st.builds(
        Completion,
        job_id=st.none() | names,
        text=text,
        finish_reason=st.none() | names,
        stop_reason=st.none() | st.integers(0, 2**20) | text,
        token_ids=token_ids,
        metrics=st.none() | metrics,
        choices=st.lists(choices, max_size=3),
        error=error,
        info=st.none() | infos,
    )


started = st.builds(Started, job_id=names, engine_version=text, request_id=names)
tokens = st.builds(
    Token,
    text=text,
    index=counts,
    choice=st.integers(0, 99),
    token_ids=token_ids,
    logprobs=logprobs,
    reasoning=st.none() | text,
    tool_calls=st.none() | st.lists(pieces, max_size=2),
    refusal=st.none() | text,
)
ends = st.builds(
    End,
    metrics=metrics,
    finish_reason=names,
    stop_reason=st.none() | st.integers(0, 2**20) | text,
    request_id=st.none() | names,
    choices=st.lists(choices, max_size=3),
    info=st.none() | infos,
)
failures = st.builds(
    Error,
    error=errors(st.none() | completions(st.none())),
    metrics=st.none() | metrics,
    choices=st.lists(choices, max_size=2),
    info=st.none() | infos,
)


def facts(error: WorkerError | None) -> dict[str, Any]:
    """All that an error says, so that two of them can be compared."""
    if error is None:
        return {}
    said = {name: getattr(error, name) for name in ENVELOPE}
    return {"class": type(error), "phase": getattr(error, "phase", None), **said}
