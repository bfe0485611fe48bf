"""What a real engine tells beside the text comes typed, and to the right choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from vllm_http import End, Logprob, TaskRequest, Token, TokenEvent, VllmHttpAdapter

from .server import MODEL, Server


CAPITAL = "The capital of France is"
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 30}
EMOJI = "😀🦜🧪 日本 👩‍🚀 naïve"


def events(adapter: VllmHttpAdapter, **fields: Any) -> tuple[list[Token], End]:
    """The tokens of one task, and its end."""
    with adapter.submit(TaskRequest(**GREEDY | fields)) as stream:
        found: list[TokenEvent] = list(stream)
    end = found[-1]
    assert isinstance(end, End), end
    return [event for event in found if isinstance(event, Token)], end


# Choices.


def test_choices_are_told_apart(adapter: VllmHttpAdapter) -> None:
    """The k-th answer to prompt i is choice i * n + k, each with indexes and an end of its own."""
    prompts = ["Hello there", "The sea is"]
    luck = {"n": 3, "temperature": 1.0, "seed": 5, "return_token_ids": True, "max_tokens": 8}

    tokens, end = events(adapter, prompt=prompts, **luck)

    of_choice = {choice: [one for one in tokens if one.choice == choice] for choice in range(6)}
    asked = [adapter.tokenize(prompt).tokens for prompt in prompts]
    assert [one.index for one in end.choices] == list(range(6))
    assert [one.prompt_token_ids for one in end.choices] == [asked[i // 3] for i in range(6)]
    assert sum(map(len, of_choice.values())) == len(tokens)
    for choice, own in of_choice.items():
        assert [one.index for one in own] == list(range(len(own)))
        assert end.choices[choice].finish_reason in ("length", "stop")
        text = "".join(one.text for one in own)
        ids = [token_id for one in own for token_id in one.token_ids or []]
        assert adapter.detokenize(ids).startswith(text)
    assert len({"".join(one.text for one in own) for own in of_choice.values()}) > 1
    assert end.metrics.tokens_generated == sum(len(one.token_ids or []) for one in tokens)


# Text.


def test_stop_string_of_several_tokens(adapter: VllmHttpAdapter) -> None:
    """It is found although no token has more than a part of it, and none of it comes out."""
    whole = "".join(one.text for one in events(adapter, prompt=CAPITAL)[0])
    stop = whole[10:22]
    assert whole.index(stop) == 10

    tokens, end = events(adapter, prompt=CAPITAL, stop=stop)
    kept, _ = events(adapter, prompt=CAPITAL, stop=stop, include_stop_str_in_output=True)

    assert adapter.tokenize(stop).count > 2
    assert "".join(one.text for one in tokens) == whole[:10]
    assert "".join(one.text for one in kept) == whole[:22]
    assert (end.finish_reason, end.stop_reason) == ("stop", stop)


def test_stop_token(adapter: VllmHttpAdapter) -> None:
    """The token that ended an answer is told as a number."""
    tokens, _ = events(adapter, prompt=CAPITAL, return_token_ids=True)
    ids = [token_id for one in tokens for token_id in one.token_ids or []]

    stopped, end = events(adapter, prompt=CAPITAL, return_token_ids=True, stop_token_ids=[ids[5]])

    place = ids.index(ids[5])
    assert [i for one in stopped for i in one.token_ids or []] == ids[: place + 1]
    assert (end.finish_reason, end.stop_reason) == ("stop", ids[5])


def test_characters_of_several_tokens(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """No event has half a character, and the ids of all are those of the whole answer."""
    fields: dict[str, Any] = {
        "prompt": "Say:",
        "structured_outputs": {"choice": [EMOJI]},
        "return_token_ids": True,
        "max_tokens": 60,
        "temperature": 0,
    }
    whole = vllm.answer(fields)["choices"][0]

    tokens, _ = events(adapter, **fields)

    ids = [token_id for one in tokens for token_id in one.token_ids or []]
    assert "".join(one.text for one in tokens) == whole["text"] == EMOJI
    assert [one.text for one in tokens if "\ufffd" in one.text] == []
    assert ids == whole["token_ids"]
    assert any(one.token_ids and not one.text for one in tokens)
    assert adapter.detokenize(ids).startswith(EMOJI)


# Logprobs.


def test_logprobs_of_a_prompts_answer(adapter: VllmHttpAdapter) -> None:
    """One for each token id: its text, its place in the text, its two rivals."""
    tokens, _ = events(
        adapter, prompt=CAPITAL, logprobs=2, return_token_ids=True, max_tokens=6, ignore_eos=True
    )

    found = logprobs_of(tokens)
    text = "".join(one.text for one in tokens)
    assert len(found) == sum(len(one.token_ids or []) for one in tokens) == 6
    assert "".join(one.token for one in found) == text
    first = found[0].text_offset
    assert first is not None
    for one in found:
        assert one.text_offset is not None
        assert text[one.text_offset - first :].startswith(one.token)
        likeliest = [top.logprob for top in one.top_logprobs if top.logprob is not None]
        assert (len(likeliest), max(likeliest)) == (2, one.logprob)


def test_logprobs_of_a_chat(adapter: VllmHttpAdapter) -> None:
    """The bytes of all tokens make the text, also where a token is part of a character."""
    tokens, _ = events(
        adapter,
        messages=[{"role": "user", "content": "Say it."}],
        structured_outputs={"choice": [EMOJI]},
        logprobs=True,
        top_logprobs=3,
        max_tokens=60,
    )

    found = logprobs_of(tokens)
    spelt = b"".join(bytes(one.bytes or []) for one in found)
    assert "".join(one.text for one in tokens) == EMOJI
    assert spelt.decode("utf-8", "ignore").replace("<|im_end|>", "") == EMOJI
    assert {len(one.top_logprobs) for one in found} <= {3, 4}
    assert all(one.logprob is not None and one.logprob <= 0 for one in found)


def logprobs_of(tokens: list[Token]) -> list[Logprob]:
    """Those of all events."""
    return [logprob for one in tokens for logprob in one.logprobs or []]


def test_prompt_logprobs(adapter: VllmHttpAdapter) -> None:
    """None for the first token of the prompt; then the one that stands there, among others."""
    tokens, end = events(adapter, prompt=CAPITAL, prompt_logprobs=1, return_token_ids=True)

    (choice,) = end.choices
    assert choice.prompt_token_ids is not None
    assert choice.prompt_logprobs is not None
    first, *rest = choice.prompt_logprobs
    assert (len(tokens), first) == (1, None)
    for token_id, place in zip(choice.prompt_token_ids[1:], rest, strict=True):
        assert place is not None
        stands = {one.token_id: one for one in place}[token_id]
        assert stands.logprob is not None
        assert stands.logprob <= 0
        assert stands.rank is not None
        assert min(one.rank or math.inf for one in place) == 1


# What it cost.


def test_engines_own_times(adapter: VllmHttpAdapter, measured: Callable[[str], None]) -> None:
    """With --enable-per-request-metrics: they fit into ours, and their figures fit each other."""
    _, end = events(adapter, prompt=CAPITAL, ignore_eos=True)

    ours, engines = end.metrics, end.metrics.engine
    assert engines is not None
    assert engines.time_to_first_token_ms is not None
    assert engines.queue_time_ms is not None
    assert engines.generation_time_ms is not None
    assert engines.mean_itl_ms is not None
    assert engines.tokens_per_second is not None
    assert engines.speculative_decoding is None
    assert ours.latency_first_token_ms is not None
    assert ours.total_time_ms is not None
    waited = engines.queue_time_ms + engines.time_to_first_token_ms
    assert 0 < waited < ours.latency_first_token_ms
    assert waited + engines.generation_time_ms < ours.total_time_ms
    assert engines.mean_itl_ms == pytest.approx(engines.generation_time_ms / 29, rel=0.01)
    measured(
        f"first token after {waited:.0f} ms by the engine's clock, "
        f"{ours.latency_first_token_ms:.0f} ms by ours"
    )


def test_engines_own_times_are_of_one_answer(adapter: VllmHttpAdapter) -> None:
    """vLLM tells none where there are several."""
    _, end = events(adapter, prompt=CAPITAL, n=2, temperature=1.0, max_tokens=3)

    assert end.metrics.engine is None


def test_times_of_an_answer_that_is_not_streamed(adapter: VllmHttpAdapter) -> None:
    """They are told as well."""
    _, end = events(adapter, prompt=CAPITAL, prompt_logprobs=0, max_tokens=3)

    assert end.metrics.engine is not None
    assert end.metrics.engine.generation_time_ms is not None
