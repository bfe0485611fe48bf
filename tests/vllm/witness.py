"""What an answer says, in one plain form: read from vLLM's whole answer, or from our events.

Read anew here, by no code of the package's, so that the two can be held against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from vllm_http import Choice, Completion


Plain = dict[str, Any]

TOLERANCE = 1e-3
"""Of logprobs. What else an engine has at work changes their last bits."""


def of_answer(answer: Plain) -> Plain:
    """A whole answer of vLLM's, of either endpoint."""
    usage = answer["usage"]
    return {
        "model": answer["model"],
        "prompt_text": answer.get("prompt_text"),
        "usage": [usage["prompt_tokens"], usage["completion_tokens"]],
        "choices": [_of_choice(choice, answer) for choice in answer["choices"]],
    }


def _of_choice(choice: Plain, answer: Plain) -> Plain:
    message = choice.get("message", {})
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return {
        "index": choice["index"],
        "text": choice["text"] if "text" in choice else message["content"] or "",
        "reasoning": message.get("reasoning") or "",
        "tool_calls": [[call["name"], call["arguments"]] for call in calls],
        "finish_reason": choice["finish_reason"],
        "stop_reason": choice["stop_reason"],
        "token_ids": choice.get("token_ids"),
        "prompt_token_ids": choice.get("prompt_token_ids", answer.get("prompt_token_ids")),
        "logprobs": _of_logprobs(choice.get("logprobs")),
        "prompt_logprobs": _of_prompt(choice.get("prompt_logprobs", answer.get("prompt_logprobs"))),
    }


def _of_logprobs(found: Plain | None) -> list[Any] | None:
    """For each token: itself, its logprob, its bytes, its place in the text, the likeliest ones."""
    if found is None:
        return None
    if "content" in found:
        return [
            [
                one["token"],
                one["logprob"],
                one["bytes"],
                None,
                {top["token"]: top["logprob"] for top in one["top_logprobs"]},
            ]
            for one in found["content"]
        ]
    tops = [top or {} for top in found["top_logprobs"]]
    parts = [found["tokens"], found["token_logprobs"], [None] * len(tops), found["text_offset"]]
    return [list(row) for row in zip(*parts, tops, strict=True)]


def _of_prompt(found: list[Any] | None) -> list[Any] | None:
    """For each place: what each token id has there."""
    if found is None:
        return None
    return [
        place
        and {
            int(token): [one["logprob"], one["rank"], one["decoded_token"]]
            for token, one in place.items()
        }
        for place in found
    ]


def of_completion(completion: Completion) -> Plain:
    """Our events, joined."""
    metrics, info = completion.metrics, completion.info
    assert metrics is not None
    assert metrics.usage_source == "engine"
    return {
        "model": info and info.model,
        "prompt_text": info and info.prompt_text,
        "usage": [metrics.tokens_in, metrics.tokens_generated],
        "choices": [_of_our_choice(choice) for choice in completion.choices],
    }


def _of_our_choice(choice: Choice) -> Plain:
    return {
        "index": choice.index,
        "text": choice.text,
        "reasoning": choice.reasoning,
        "tool_calls": [[call.name, call.arguments] for call in choice.tool_calls],
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "token_ids": choice.token_ids,
        "prompt_token_ids": choice.prompt_token_ids,
        "logprobs": choice.logprobs
        and [
            [
                one.token,
                one.logprob,
                one.bytes,
                one.text_offset,
                {top.token: top.logprob for top in one.top_logprobs},
            ]
            for one in choice.logprobs
        ],
        "prompt_logprobs": choice.prompt_logprobs
        and [
            place and {one.token_id: [one.logprob, one.rank, one.decoded_token] for one in place}
            for place in choice.prompt_logprobs
        ],
    }


def told(plain: Plain, fields: Plain) -> Plain:
    """What was asked for; with `echo` vLLM tells more of a prompt, in streams or else only."""
    kept = {**plain, "choices": [dict(choice) for choice in plain["choices"]]}
    for choice in kept["choices"]:
        if not fields.get("return_token_ids"):
            del choice["prompt_token_ids"]
        if fields.get("prompt_logprobs") is None:
            del choice["prompt_logprobs"]
    return kept


def differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Where two plain forms differ, and how; numbers with a point may by `TOLERANCE`."""
    if isinstance(ours, float) and isinstance(theirs, float):
        if not math.isclose(ours, theirs, rel_tol=0, abs_tol=TOLERANCE):
            yield f"{place}: {ours} is not {theirs}"
    elif isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        for key in ours:
            yield from differences(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(*pair, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} is not {theirs!r}"
