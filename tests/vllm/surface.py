"""Where each field of vLLM's is in our types; docs/requests.md is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields

from vllm_http import TaskRequest


# Fields of a request that are no fields of a task, and why.
LEFT = {
    "stream": "the adapter's own",
    "stream_options": "the adapter's own; `TaskRequest.include_usage`",
    "request_id": "the adapter sends `X-Request-Id`, which is stronger",
    "session_id": "`TaskRequest.session_id` is for affinity among replicas and is not sent; "
    "to tell vLLM, send the header `X-Session-ID`",
    "return_token_offsets": "`extra_body`: of the render endpoints only",
    "mm_payload": "`extra_body`: of the render endpoints only",
    "return_mm_kwargs": "`extra_body`: of the render endpoints only",
}

# Fields of an answer, by what their path ends with; the longest that fits counts.
ANSWERS = {
    "id": "`Started.request_id`, `End.request_id`, behind `cmpl-` or `chatcmpl-`",
    "object": "-: tells nothing",
    "created": "-: the caller has a clock of its own",
    "model": "`AnswerInfo.model`",
    "service_tier": "-: always null in vLLM 0.32",
    "system_fingerprint": "`AnswerInfo.system_fingerprint`",
    "prompt_text": "`AnswerInfo.prompt_text`",
    "kv_transfer_params": "`AnswerInfo.kv_transfer_params`",
    "ec_transfer_params": "`AnswerInfo.ec_transfer_params`",
    "choices[].index": "`Token.choice`, `Choice.index`",
    "choices[].text": "`Token.text`, `Choice.text`",
    "choices[].finish_reason": "`Choice.finish_reason`",
    "choices[].stop_reason": "`Choice.stop_reason`",
    "choices[].token_ids": "`Token.token_ids`, `Choice.token_ids`",
    "choices[].logprobs.*": "`Token.logprobs`, `Choice.logprobs`",
    "prompt_token_ids": "`Choice.prompt_token_ids`",
    "prompt_logprobs[].*": "`Choice.prompt_logprobs`",
    "choices[].routed_experts": "-: vLLM does not stream it; a trace for training",
    "choices[].delta.content": "`Token.text`",
    "choices[].message.content": "`Token.text`",
    "choices[].delta.reasoning": "`Token.reasoning`, `Choice.reasoning`",
    "choices[].message.reasoning": "`Token.reasoning`, `Choice.reasoning`",
    "choices[].delta.role": "-: always assistant",
    "choices[].message.role": "-: always assistant",
    "tool_calls[].id": "`ToolCallDelta.id`, `ToolCall.id`",
    "tool_calls[].type": "-: always function",
    "tool_calls[].index": "`ToolCallDelta.index`, the place in `Choice.tool_calls`",
    "tool_calls[].function.id": "`ToolCall.id`",
    "tool_calls[].function.name": "`ToolCallDelta.name`, `ToolCall.name`",
    "tool_calls[].function.arguments": "`ToolCallDelta.arguments`, `ToolCall.arguments`",
    "choices[].message.annotations.*": "-: always null in vLLM 0.32",
    "choices[].message.audio.*": "-: always null in vLLM 0.32",
    "choices[].message.function_call.*": "as a tool call; always null in vLLM 0.32",
    "choices[].message.refusal": "`Token.refusal`, `Choice.refusal`; always null in vLLM 0.32",
    "usage.prompt_tokens": "`Metrics.tokens_in`",
    "usage.completion_tokens": "`Metrics.tokens_generated`",
    "usage.total_tokens": "-: the sum of the two",
    "cached_tokens": "`Metrics.cached_tokens`",
    "created_cache_tokens": "`Metrics.created_cache_tokens`",
    "multimodal_tokens": "`Metrics.multimodal_tokens`",
    "reasoning_tokens": "`Metrics.reasoning_tokens`",
    "metrics.*": "`Metrics.engine`, under the same name",
}


def place_of_request_field(name: str) -> str | None:
    """Where a field of vLLM's request is in ours; None if nobody knows."""
    if name in {f.name for f in fields(TaskRequest)} - LEFT.keys():
        return f"`TaskRequest.{name}`"
    return LEFT.get(name)


def place_of_answer_field(path: str) -> str | None:
    """Where a field of vLLM's answer is in ours; None if nobody knows."""
    fitting = [pattern for pattern in ANSWERS if _fits(pattern, path)]
    return ANSWERS[max(fitting, key=len)] if fitting else None


def _fits(pattern: str, path: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*")
    return re.fullmatch(rf"(.*\.)?{expression}", path) is not None


def document(
    requests: Mapping[str, Iterable[str]], answers: Mapping[str, Iterable[str]], version: str
) -> str:
    """The text of docs/requests.md."""
    lines = [
        "# All that vLLM takes and tells, and where it is",
        "",
        f"Made by a test from what a running vLLM {version} says of itself (`tox -e vllm -- -k "
        "surface`); the test fails when vLLM",
        "grows a field that is not here. What a field means and its limits: `help(vllm_http."
        "TaskRequest)`, and vLLM's own documentation.",
        "",
        "## Requests",
        "",
        "| vLLM's field | `/v1/completions` | `/v1/chat/completions` | here |",
        "|---|---|---|---|",
        *_rows(requests, place_of_request_field),
        "",
        "## Answers",
        "",
        "Of streams and of whole answers; `[]` is a list, or a dict of what follows.",
        "",
        "| vLLM's field | `/v1/completions` | `/v1/chat/completions` | here |",
        "|---|---|---|---|",
        *_rows(answers, place_of_answer_field),
    ]
    return "\n".join(lines) + "\n"


def _rows(found: Mapping[str, Iterable[str]], place: Callable[[str], str | None]) -> Iterator[str]:
    of_prompts, of_chat = set(found["completions"]), set(found["chat"])
    for name in sorted(of_prompts | of_chat):
        marks = ("x" if name in known else "" for known in (of_prompts, of_chat))
        yield f"| `{name}` | {' | '.join(marks)} | {place(name)} |"
