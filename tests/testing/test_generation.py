"""What the engine says when nobody scripts it: deterministic, counted, within its limits."""

from __future__ import annotations

from typing import Any

import pytest
from testing.raw_client import RawClient, read_response

from vllm_http.testing import FakeEngine


def text(client: RawClient, **fields: Any) -> str:
    """The text of a whole completion of 12 tokens."""
    return str(client.complete(max_tokens=12, **fields).json["choices"][0]["text"])


def test_stream_says_the_same_as_the_whole(client: RawClient) -> None:
    """A stream's deltas add up to the whole answer."""
    assert "".join(client.complete(max_tokens=12, stream=True).texts) == text(client)


def test_chat_stream_says_the_same_as_the_whole(client: RawClient) -> None:
    """A chat's deltas add up to the whole message, after the role."""
    whole = client.chat(max_tokens=12).json["choices"][0]["message"]["content"]
    opening, *deltas = [
        e["choices"][0]["delta"] for e in client.chat(max_tokens=12, stream=True).events
    ]

    assert opening == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas) == whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 1}, {"seed": 2}),
        ({"prompt": "a"}, {"prompt": "b"}),
        ({"seed": 1, "temperature": 0.5}, {"seed": 1, "temperature": 0.6}),
    ],
    ids=["seed", "prompt", "temperature"],
)
def test_text_follows_the_request(
    client: RawClient, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Equal requests get equal text; another seed, prompt or temperature gets another one."""
    assert text(client, **one) == text(client, **one)
    assert text(client, **one) != text(client, **other)


def test_greedy_text_ignores_the_seed(client: RawClient) -> None:
    """At temperature 0 the request's seed changes nothing."""
    assert text(client, temperature=0, seed=1) == text(client, temperature=0, seed=2)


def test_text_follows_the_engines_seed(client: RawClient) -> None:
    """Two engines agree if their seeds do."""
    with FakeEngine() as same, RawClient(same) as other:
        assert text(other) == text(client)
    with FakeEngine(seed=1) as different, RawClient(different) as other:
        assert text(other) != text(client)


def test_text_is_multi_byte_now_and_then(client: RawClient) -> None:
    """A long text holds letters of two, three and four bytes, not escaped."""
    body = client.complete(max_tokens=500).body.decode()

    assert {len(letter.encode()) for letter in body} == {1, 2, 3, 4}


def test_prompts_times_n_are_choices(client: RawClient) -> None:
    """Choice number prompt * n + i belongs to that prompt; prompts are counted once."""
    answer = client.complete(prompt=["a b", [7, 8, 9]], n=2, max_tokens=3, return_token_ids=True)

    choices = answer.json["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [len(choice["prompt_token_ids"]) for choice in choices] == [2, 2, 3, 3]
    assert choices[2]["prompt_token_ids"] == [7, 8, 9]
    assert len({choice["text"] for choice in choices}) == 4
    assert answer.json["usage"]["prompt_tokens"] == 5
    assert answer.json["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 64),
        ({"max_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 2}, 2),
        ({"max_tokens": None}, 64),
        ({"max_tokens": "3"}, 3),
    ],
)
def test_limits_of_a_chat(client: RawClient, fields: dict[str, Any], tokens: int) -> None:
    """max_completion_tokens wins over max_tokens; without both there is a default."""
    assert client.chat(**fields).json["usage"]["completion_tokens"] == tokens


def test_completions_have_16_tokens(client: RawClient) -> None:
    """vLLM's default for completions."""
    assert client.complete().json["usage"]["completion_tokens"] == 16


def test_limit_is_clipped_to_the_context() -> None:
    """A prompt that leaves some room gets what is left, without a word."""
    with FakeEngine(max_model_len=10) as engine, RawClient(engine) as client:
        usage = client.complete(prompt="a b c d e f g", max_tokens=8).json["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (7, 3)


def test_choices_may_end_at_different_times() -> None:
    """In a stream, each choice ends where its own prompt leaves no more room."""
    with FakeEngine(max_model_len=10) as engine, RawClient(engine) as client:
        events = client.complete(prompt=["a b c d e f g", "a"], max_tokens=5, stream=True).events

    choices = [choice for event in events for choice in event["choices"]]
    assert [choice["index"] for choice in choices] == [0, 1, 0, 1, 0, 1, 1, 1]
    assert [c["index"] for c in choices if c["finish_reason"] == "length"] == [0, 1]


def test_ids_are_fresh_and_repeatable(client: RawClient) -> None:
    """Without a request id, ids are 16 hex digits, new for each request, equal for each run."""
    ids = [client.complete().json["id"], client.complete().json["id"]]
    with FakeEngine() as again, RawClient(again) as other:
        repeated = [other.complete().json["id"], other.complete().json["id"]]

    assert len(ids[0]) == len("cmpl-") + 16
    assert ids[0] != ids[1]
    assert ids == repeated


def test_request_id_header_wins(client: RawClient) -> None:
    """The header names the answer even when the body does too."""
    body = {"prompt": "a", "request_id": "b", "stream": False}
    client.request("POST", "/v1/completions", body, [("X-Request-Id", "h")])

    assert read_response(client.stream).json["id"] == "cmpl-h"


def test_tokenize_agrees_with_usage(client: RawClient) -> None:
    """/tokenize counts as the answers do, for prompts and for messages."""
    messages = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a b c"}]},
    ]
    client.request("POST", "/tokenize", {"prompt": "a b c"})
    prompt = read_response(client.stream).json
    client.request("POST", "/tokenize", {"messages": messages})
    chat = read_response(client.stream).json

    assert (prompt["count"], len(prompt["tokens"]), prompt["token_strs"]) == (3, 3, None)
    assert client.complete(prompt="a b c").json["usage"]["prompt_tokens"] == 3
    assert chat["count"] == client.chat(messages=messages).json["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"continuous_usage_stats": True}]
)
def test_usage_only_when_asked(client: RawClient, options: dict[str, bool] | None) -> None:
    """A stream without include_usage never mentions usage."""
    response = client.complete(stream=True, stream_options=options)

    assert b"usage" not in response.body


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"temperature": "hot"}, 400),
        ({"max_tokens": [1]}, 400),
        ({"prompt": 7}, 400),
        ({"stream_options": 1, "stream": True}, 200),
        ({"prompt": [[]]}, 200),
        ({"logprobs": {}}, 400),
        ({"stop": [5], "stop_token_ids": ["a"]}, 200),
        ({"structured_outputs": 7}, 200),
    ],
)
def test_nonsense_gets_an_answer(client: RawClient, fields: dict[str, Any], status: int) -> None:
    """Whatever JSON comes, some answer goes out and the connection lives on."""
    assert client.complete(**fields).head.status == status
    assert client.get("/health").head.status == 200


def test_body_that_is_no_text_is_refused(client: RawClient) -> None:
    """Bytes that are no UTF-8 are no JSON either."""
    client.send(
        b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n\xff\xff"
    )

    assert client.stream.readline() == b"HTTP/1.1 400 Bad Request\r\n"
