"""An engine that guesses, and tells several tokens at once: all are counted, none is misplaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from support import wait_until

from vllm_http import End, SpeculativeDecoding, TaskRequest, Timeouts, Token, VllmHttpAdapter

from .recipe import prepare
from .same_requests import CHAT, COMPLETIONS, Fields
from .server import MODEL, Server, free_port, serving
from .witness import differences, of_answer, of_completion, told


INTERVAL = 4
GUESSES = 3
SPECULATION = {"method": "ngram", "num_speculative_tokens": GUESSES}
SPECULATION |= {"prompt_lookup_max": 3, "prompt_lookup_min": 2}
FLAGS = ["--stream-interval", str(INTERVAL), "--speculative-config", json.dumps(SPECULATION)]
FLAGS += ["--per-request-spec-decode-metrics", "detailed", "--enable-per-request-metrics"]

TENS = "one two three four five six seven eight nine ten "
REPEAT: dict[str, Any] = {"prompt": TENS * 4, "temperature": 0, "max_tokens": 40}
IDS = {"return_token_ids": True}
ATTEMPTS = 5  # guesses change what is computed together, so now and then an answer


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that guesses from the prompt, and speaks every fourth token only."""
    log = tmp_path_factory.mktemp("vllm") / "merged.log"
    with serving(prepare(), free_port(), FLAGS, log) as server:
        yield server


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """An adapter for that server, which lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0)) as adapter:
        yield adapter


def events(adapter: VllmHttpAdapter, **fields: Any) -> tuple[list[Token], End]:
    """The tokens of one task, and its end."""
    with adapter.submit(TaskRequest(model=MODEL, **fields)) as stream:
        _, *tokens, end = stream
    assert isinstance(end, End), end
    return [one for one in tokens if isinstance(one, Token)], end


def test_several_tokens_in_one_event(
    adapter: VllmHttpAdapter, measured: Callable[[str], None]
) -> None:
    """The first comes alone, the others in fours at least; the count is of tokens, not events."""
    tokens, end = events(adapter, **REPEAT, **IDS)

    sizes = [len(one.token_ids or []) for one in tokens]
    measured(f"{end.metrics.tokens_generated} tokens in events of {sizes}")
    assert min(sizes[1:-1]) >= INTERVAL
    assert sum(sizes) == end.metrics.tokens_generated == REPEAT["max_tokens"]
    assert [one.index for one in tokens] == list(range(len(tokens)))
    assert end.metrics.usage_source == "engine"
    ids = [token_id for one in tokens for token_id in one.token_ids or []]
    assert adapter.detokenize(ids) == "".join(one.text for one in tokens)


def test_tokens_without_ids_are_counted_too(adapter: VllmHttpAdapter) -> None:
    """By the engine's usage: there are far fewer events."""
    tokens, end = events(adapter, **REPEAT)

    assert end.metrics.tokens_generated == REPEAT["max_tokens"]
    assert len(tokens) <= REPEAT["max_tokens"] / INTERVAL + 1


def test_choices_are_not_mixed(adapter: VllmHttpAdapter) -> None:
    """Each of two prompts with two answers has indexes of its own, and all its tokens."""
    luck = {"n": 2, "temperature": 0.9, "seed": 4, "max_tokens": 14, "ignore_eos": True}

    tokens, end = events(adapter, prompt=[TENS * 3, "The sea is"], **luck, **IDS)

    for choice in range(4):
        own = [one for one in tokens if one.choice == choice]
        assert [one.index for one in own] == list(range(len(own)))
        assert sum(len(one.token_ids or []) for one in own) == 14
    assert end.metrics.tokens_generated == 4 * 14


CHAT_ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": f"Say again: {TENS * 2}"}]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (COMPLETIONS, {**REPEAT, **IDS}),
        (COMPLETIONS, {**REPEAT, "logprobs": 2, **IDS}),
        (COMPLETIONS, {**REPEAT, "stop": ["seven ei"]}),
        (COMPLETIONS, {**REPEAT, "stop": ["six"], "include_stop_str_in_output": True}),
        (COMPLETIONS, {**REPEAT, "echo": True}),
        (COMPLETIONS, {**REPEAT, "prompt": "😀😃😄" * 4, **IDS}),
        (COMPLETIONS, {**REPEAT, "prompt_logprobs": 0}),
        (COMPLETIONS, {**REPEAT, "structured_outputs": {"regex": "(ab){6}"}}),
        (CHAT, {**CHAT_ASKED, "temperature": 0, "max_tokens": 24, **IDS}),
        (CHAT, {**CHAT_ASKED, "temperature": 0, "max_tokens": 24, "logprobs": True}),
        (CHAT, {**CHAT_ASKED, "temperature": 0, "max_tokens": 24, "stream_interval": 9}),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value))[:60],
)
def test_events_joined_are_the_whole_answer(
    adapter: VllmHttpAdapter, vllm: Server, path: str, fields: Fields
) -> None:
    """As where each event is one token."""
    found = ["never asked"]
    for _ in range(ATTEMPTS):
        fields = {"model": MODEL, **fields}
        ours = of_completion(adapter.submit(TaskRequest(**fields)).result())
        answer = requests.post(vllm.url + path, json=fields, timeout=60).json()
        found = list(differences(told(ours, fields), told(of_answer(answer), fields)))
        if not found:
            break

    assert found == []


# How good the guesses were.


def test_guesses_of_one_request(adapter: VllmHttpAdapter, measured: Callable[[str], None]) -> None:
    """With --per-request-spec-decode-metrics: its figures fit each other and the tokens."""
    _, end = events(adapter, **REPEAT, ignore_eos=True)

    assert end.metrics.engine is not None
    found = end.metrics.engine.speculative_decoding
    assert isinstance(found, SpeculativeDecoding)
    measured(f"guesses: {found}")
    assert found.num_spec_tokens == GUESSES
    assert found.num_spec_steps is not None
    assert found.num_accepted_draft_tokens is not None
    assert found.num_draft_tokens is not None
    assert found.draft_acceptance_rate is not None
    assert found.mean_acceptance_length is not None
    assert found.per_step_accepted is not None
    assert found.per_step_drafted is not None
    steps, accepted = found.num_spec_steps, found.num_accepted_draft_tokens
    assert 0 < accepted <= found.num_draft_tokens <= GUESSES * steps
    assert len(found.per_step_accepted) == len(found.per_step_drafted) == steps
    assert (sum(found.per_step_accepted), sum(found.per_step_drafted)) == (
        accepted,
        found.num_draft_tokens,
    )
    assert sum(found.acceptance_histogram) == steps
    assert found.draft_acceptance_rate == pytest.approx(accepted / found.num_draft_tokens)
    assert found.mean_acceptance_length == pytest.approx(1 + accepted / steps)


def test_guesses_of_the_engine(adapter: VllmHttpAdapter) -> None:
    """What /metrics counts grows by what the request tells."""
    before = adapter.metrics().spec_decode_accepted_tokens or 0
    _, end = events(adapter, **REPEAT)

    assert end.metrics.engine is not None
    assert end.metrics.engine.speculative_decoding is not None
    accepted = end.metrics.engine.speculative_decoding.num_accepted_draft_tokens or 0
    assert accepted > 0
    # The counters lag by a step.
    wait_until(lambda: adapter.metrics().spec_decode_accepted_tokens == before + accepted)
