"""tokenize and detokenize: what goes out, what may come back, and what is refused before."""

from __future__ import annotations

from typing import Any

import pytest
import support
from calls_support import quick, replying, says, sent_body, the_failure
from wire import capture

from vllm_http import InvalidRequest, StreamingError, VllmHttpAdapter
from vllm_http._tokenizing import Tokenized
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

CHAT = [{"role": "user", "content": "Hi there"}]


def test_tokens_of_a_prompt(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The ids, their number and the model's context; their texts only where asked for."""
    found = adapter.tokenize("three small words")

    assert (found.count, len(found.tokens)) == (3, 3)
    assert (found.max_model_len, found.token_strs) == (2048, None)
    assert sent_body(engine, "/tokenize") == {"prompt": "three small words"}


def test_texts_of_the_tokens(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """return_token_strs is sent, and there are as many texts as tokens."""
    found = adapter.tokenize("three small words", return_token_strs=True)

    assert found.token_strs == ["three", " small", " words"]


def test_tokens_of_a_chat(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A chat goes out with all that the template may want, under vLLM's names."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    options: dict[str, Any] = {
        "tools": tools,
        "add_special_tokens": False,
        "add_generation_prompt": False,
        "continue_final_message": True,
    }

    assert adapter.tokenize(messages=CHAT, **options).count == 2
    assert sent_body(engine, "/tokenize") == {"messages": CHAT, **options}


def test_empty_prompt_has_no_tokens(adapter: VllmHttpAdapter) -> None:
    """vLLM 0.32 takes it, and so does the adapter."""
    assert adapter.tokenize("").tokens == []


def test_recorded_tokens_are_read() -> None:
    """A real answer: five tokens, as the vocabulary writes them."""
    with replying(says(capture("A-tokenize").body)) as server, quick(server.url) as adapter:
        found = adapter.tokenize("The capital of France is", return_token_strs=True)

    assert found == Tokenized(
        tokens=[504, 3575, 282, 4649, 314],
        count=5,
        max_model_len=2048,
        token_strs=["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"],
    )


def test_text_of_tokens(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The ids go out as they are, and the text comes back."""
    body = {"prompt": "The capital of France is"}
    with replying(says(body)) as server, quick(server.url) as other:
        assert other.detokenize([504, 3575, 282, 4649, 314]) == body["prompt"]

    assert server.posts[0].body == {"tokens": [504, 3575, 282, 4649, 314]}
    assert adapter.detokenize([]) == ""


@pytest.mark.parametrize(
    "body",
    [
        {"tokens": [1, "2"], "max_model_len": 5},
        {"tokens": [1, True], "max_model_len": 5},
        {"tokens": None, "max_model_len": 5},
        {"tokens": {"1": 1}, "max_model_len": 5},
        {"tokens": [1], "max_model_len": 5, "token_strs": [1]},
        {"max_model_len": 5},
        {"prompt": 5},
    ],
)
def test_answer_that_does_not_fit(body: Any) -> None:
    """What is neither tokens nor text is an error."""
    with replying(says(body)) as server, quick(server.url) as adapter:
        for ask in (lambda: adapter.tokenize("Hello"), lambda: adapter.detokenize([5])):
            assert type(the_failure(ask)) is StreamingError


@pytest.mark.parametrize("body", [{"tokens": [1, 2]}, {"tokens": [1, 2], "max_model_len": None}])
def test_engine_that_tells_less(body: Any) -> None:
    """Tokens alone are an answer."""
    with replying(says(body)) as server, quick(server.url) as adapter:
        assert adapter.tokenize("Hello") == Tokenized([1, 2], 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "prompt, messages: exactly one"),
        ({"prompt": "a", "messages": CHAT}, "prompt, messages: exactly one"),
        ({"prompt": ["a"]}, "prompt: text is wanted, not list"),
        ({"prompt": b"my secret"}, "prompt: text is wanted, not bytes"),
        ({"messages": []}, "messages: a list of at least 1"),
        ({"messages": ["my secret"]}, r"messages\[0\]: a dict is wanted, not str"),
        ({"prompt": "a", "add_special_tokens": 1}, "add_special_tokens: 1 is neither"),
        ({"prompt": "a", "return_token_strs": "yes"}, "return_token_strs: 'yes' is neither"),
        ({"prompt": "a", "tools": [{}]}, "tools: vLLM takes it with messages only"),
        ({"prompt": "a", "add_generation_prompt": False}, "add_generation_prompt: .* only"),
        ({"prompt": "a", "continue_final_message": True}, "continue_final_message: .* only"),
    ],
)
def test_fields_out_of_their_limits(
    engine: FakeEngine, adapter: VllmHttpAdapter, fields: dict[str, Any], message: str
) -> None:
    """What is wrong is named, no part of a prompt is shown, and nothing is sent."""
    with pytest.raises(InvalidRequest, match=message) as caught:
        adapter.tokenize(**fields)

    assert "secret" not in str(caught.value)
    assert engine.requests == []


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("a", "tokens: a list of token ids is wanted, not str"),
        (None, "tokens: a list of token ids is wanted, not NoneType"),
        ([5, -1], r"tokens\[1\]: -1 is no token id"),
        ([5, "6"], r"tokens\[1\]: str is no token id"),
    ],
)
def test_tokens_out_of_their_limits(
    engine: FakeEngine, adapter: VllmHttpAdapter, tokens: Any, message: str
) -> None:
    """Only token ids are turned into text."""
    with pytest.raises(InvalidRequest, match=message):
        adapter.detokenize(tokens)

    assert engine.requests == []


def test_tokens_travel() -> None:
    """The result goes to JSON and back."""
    found = Tokenized([5, 6], 2, 64, ["a", "b"])

    assert Tokenized.from_json(found.to_json()) == found
