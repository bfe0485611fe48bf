"""Tokens of a real engine, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_http import InvalidRequest, TaskRequest, VllmHttpAdapter

from .server import CONTEXT, MODEL


def test_text_to_tokens_and_back(adapter: VllmHttpAdapter) -> None:
    """A text's tokens make the same text."""
    text = "The capital of France is Paris, naïvely: 世界 🙂"

    found = adapter.tokenize(text, model=MODEL, return_token_strs=True)

    assert found.count == len(found.tokens) == len(found.token_strs or ())
    assert found.max_model_len == CONTEXT
    assert adapter.detokenize(found.tokens, model=MODEL) == text


def test_tokens_are_those_of_a_task(adapter: VllmHttpAdapter) -> None:
    """A prompt and a chat have as many tokens as the engine counts when it answers them."""
    chat = [{"role": "user", "content": "Hi"}]

    def counted(**question: Any) -> int | None:
        task = TaskRequest(model=MODEL, max_tokens=1, **question)
        metrics = adapter.submit(task).result().metrics
        return None if metrics is None else metrics.tokens_in

    assert adapter.tokenize("One, two").count == counted(prompt="One, two")
    assert adapter.tokenize(messages=chat).count == counted(messages=chat)


def test_chat_can_be_left_open(adapter: VllmHttpAdapter) -> None:
    """Without the opening of an answer a chat is shorter."""
    chat = [{"role": "user", "content": "Hi"}]

    whole = adapter.tokenize(messages=chat)
    bare = adapter.tokenize(messages=chat, add_generation_prompt=False)

    assert whole.tokens[: bare.count] == bare.tokens
    assert whole.count > bare.count


def test_nothing_is_something(adapter: VllmHttpAdapter) -> None:
    """No text has no tokens, and ids that are in no vocabulary have no text."""
    assert adapter.tokenize("").tokens == []
    assert adapter.detokenize([]) == ""
    assert adapter.detokenize([99_999_999]) == ""


def test_refusals(adapter: VllmHttpAdapter) -> None:
    """An unknown model is told by its status, and so is a route of a pooling engine."""
    with pytest.raises(InvalidRequest) as unknown:
        adapter.tokenize("Hello", model="nobody")
    with pytest.raises(InvalidRequest) as absent:
        adapter.embed("Hello", model=MODEL)

    assert (unknown.value.status, unknown.value.code) == (404, "UPSTREAM_NOT_FOUND")
    assert "does not exist" in unknown.value.message
    assert (absent.value.status, absent.value.code) == (404, "UPSTREAM_NOT_FOUND")
