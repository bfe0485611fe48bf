"""A question about pictures or sounds: through the adapter, and to the server without us."""

from __future__ import annotations

from typing import Any

from vllm_http import Completion, Metrics, TaskRequest, VllmHttpAdapter

from .server import MODEL, Server


Part = dict[str, Any]

QUESTION = {"type": "text", "text": "What is it?"}
STEADY = {"max_tokens": 8, "temperature": 0.0, "return_token_ids": True}

# The models are too small to be worth 16 bits, in which one rounding may choose another token.
FLAGS = ["--dtype", "float32", "--enable-prompt-tokens-details"]


def messages(*parts: Part) -> list[Part]:
    """The question, with those parts behind it."""
    return [{"role": "user", "content": [QUESTION, *parts]}]


def task(*parts: Part, **fields: Any) -> TaskRequest:
    """The question as a task; `fields` change it."""
    return TaskRequest(model=MODEL, messages=messages(*parts), **STEADY | fields)


def answer(adapter: VllmHttpAdapter, *parts: Part, **fields: Any) -> Completion:
    """What the model says of those parts, through the adapter."""
    with adapter.submit(task(*parts, **fields)) as stream:
        return stream.result()


def ids(completion: Completion) -> list[int]:
    """Its tokens."""
    assert completion.token_ids
    return completion.token_ids


def metrics(completion: Completion) -> Metrics:
    """What was measured and counted of it."""
    assert completion.metrics is not None
    return completion.metrics


def plain_choices(vllm: Server, *parts: Part, **fields: Any) -> list[dict[str, Any]]:
    """What the model says without us: JSON by hand, no stream."""
    body = {"messages": messages(*parts), **STEADY, **fields}
    choices: list[dict[str, Any]] = vllm.answer(body, "/v1/chat/completions")["choices"]
    return choices


def plain_ids(vllm: Server, *parts: Part, **fields: Any) -> list[int]:
    """The tokens of that, where it is one choice."""
    (choice,) = plain_choices(vllm, *parts, **fields)
    token_ids: list[int] = choice["token_ids"]
    return token_ids
