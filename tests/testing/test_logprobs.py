"""Log probabilities, echoes and token ids: one entry a token, the same in a stream and whole."""

from __future__ import annotations

from typing import Any

import pytest
from testing.raw_client import RawClient

from vllm_http.testing import FakeEngine, Finish, Text


LISTS = ("text_offset", "token_logprobs", "tokens", "top_logprobs")


def completed(client: RawClient, **fields: Any) -> dict[str, Any]:
    """The only choice of a completion of 50 tokens."""
    (choice,) = client.complete(max_tokens=50, **fields).json["choices"]
    assert isinstance(choice, dict)
    return choice


def streamed(client: RawClient, **fields: Any) -> list[dict[str, Any]]:
    """The same in a stream: one choice an event."""
    events = client.complete(max_tokens=50, stream=True, **fields).events
    return [choice for event in events for choice in event["choices"]]


@pytest.mark.parametrize("count", [0, 2, 20])
def test_logprobs_of_a_completion(client: RawClient, count: int) -> None:
    """Each token has its offset, its logprob, and the likeliest ones besides itself."""
    choice = completed(client, logprobs=count)
    logprobs = choice["logprobs"]

    assert "".join(logprobs["tokens"]) == choice["text"]
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        assert choice["text"][offset:].startswith(token)
    for own, token, top in zip(*(logprobs[name] for name in LISTS[1:]), strict=True):
        assert next(iter(top.items())) == (token, own)
        assert own < 0


def test_unlikely_token_comes_on_top(client: RawClient) -> None:
    """A token that is not among the likeliest makes them one more; most tokens are."""
    sizes = [len(top) for top in completed(client, logprobs=2)["logprobs"]["top_logprobs"]]

    assert set(sizes) == {2, 3}
    assert sizes.count(2) > sizes.count(3)


@pytest.mark.parametrize("fields", [{}, {"echo": True}, {"return_tokens_as_token_ids": True}])
def test_streamed_logprobs_add_up(client: RawClient, fields: dict[str, Any]) -> None:
    """The lists of a stream's events, joined, are those of the whole."""
    whole = completed(client, logprobs=1, **fields)["logprobs"]
    parts = [choice["logprobs"] for choice in streamed(client, logprobs=1, **fields)]

    assert {name: [item for part in parts for item in part[name]] for name in LISTS} == whole


def test_tokens_by_their_ids(client: RawClient) -> None:
    """With return_tokens_as_token_ids the logprobs name ids."""
    choice = completed(client, logprobs=0, return_tokens_as_token_ids=True, return_token_ids=True)

    assert choice["logprobs"]["tokens"] == [f"token_id:{id}" for id in choice["token_ids"]]


@pytest.mark.parametrize("prompt", ["Hello  there", [1001, 1002, 7]])
def test_echo(client: RawClient, prompt: str | list[int]) -> None:
    """The prompt stands before the text, and its first token has no logprob."""
    plain = completed(client, prompt=prompt)["text"]
    echo = completed(client, prompt=prompt, echo=True, logprobs=1)
    first = streamed(client, prompt=prompt, echo=True)[0]

    assert echo["text"].endswith(plain)
    assert echo["text"] == "".join(echo["logprobs"]["tokens"])
    assert echo["logprobs"]["token_logprobs"].count(None) == 1
    assert first["text"].startswith(echo["text"].removesuffix(plain))
    assert first["prompt_token_ids"] is not None
    if isinstance(prompt, str):
        assert echo["text"] == prompt + plain


def test_echo_with_ids_is_none(client: RawClient) -> None:
    """As in vLLM, return_token_ids leaves the prompt out of an echo's text."""
    fields: dict[str, Any] = {"return_token_ids": True}

    assert completed(client, echo=True, **fields)["text"] == completed(client, **fields)["text"]


def test_prompt_logprobs(client: RawClient) -> None:
    """One entry a token of the prompt, by id; the first token has none."""
    choice = completed(client, prompt="a b c", prompt_logprobs=2, return_token_ids=True)
    first, *others = choice["prompt_logprobs"]

    assert first is None
    assert [next(iter(each)) for each in others] == [str(i) for i in choice["prompt_token_ids"][1:]]
    assert [next(iter(each.values()))["decoded_token"] for each in others] == [" b", " c"]
    assert all(len(each) in (2, 3) for each in others)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_a_chat(client: RawClient, stream: bool) -> None:
    """Each token has its bytes and exactly top_logprobs likely ones, itself the first."""
    response = client.chat(max_tokens=50, logprobs=True, top_logprobs=2, stream=stream)
    choices = [e["choices"][0] for e in (response.events if stream else [response.json])]
    entries = [entry for c in choices if c["logprobs"] for entry in c["logprobs"]["content"]]

    assert len(entries) == 50
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert [len(entry["top_logprobs"]), entry["top_logprobs"][0]["token"]] == [
            2,
            entry["token"],
        ]


def test_chat_without_top_logprobs(client: RawClient) -> None:
    """logprobs alone bring none of the other likely tokens."""
    (choice,) = client.chat(max_tokens=3, logprobs=True).json["choices"]

    assert [entry["top_logprobs"] for entry in choice["logprobs"]["content"]] == [[], [], []]


def test_scripted_tokens_have_logprobs(engine: FakeEngine, client: RawClient) -> None:
    """What a script says has them too; an end without text has none."""
    engine.script(Text("Hi"), Text(" you"), Finish())
    logprobs = [choice["logprobs"] for choice in streamed(client, logprobs=1)]

    assert [each and each["tokens"] for each in logprobs] == [["Hi"], [" you"], None]
    assert [each["text_offset"] for each in logprobs[:2]] == [[0], [2]]


@pytest.mark.parametrize("fields", [{"logprobs": 21}, {"structured_outputs": {"regex": "("}}])
def test_late_refusal(client: RawClient, fields: dict[str, Any]) -> None:
    """What vLLM finds late is a 400 without a stream, and an error event within a 200 with one."""
    whole = client.complete(**fields)
    stream = client.complete(**fields, stream=True)

    assert (whole.head.status, stream.head.status) == (400, 200)
    assert stream.events == [whole.json]
    assert stream.chunks[-1] == b"data: [DONE]\n\n"
    assert client.get("/health").head.status == 200
