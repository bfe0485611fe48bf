"""What a real engine answers arrives whole, in order, and counted as the engine counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from vllm_http import End, Started, TaskRequest, Token, VllmHttpAdapter

from .server import MODEL, Server


HELLO: dict[str, Any] = {
    "prompt": "Hello, world!",
    "max_tokens": 100,
    "temperature": 0.7,
    "seed": 42,
}
GREEDY: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0.0}

JAPANESE = "日本語のテキスト 🙂🚀"


def text(adapter: VllmHttpAdapter, **parameters: Any) -> str:
    """Return the text of one streamed answer."""
    with adapter.submit(TaskRequest(model=MODEL, **parameters)) as stream:
        return "".join(stream.text())


def test_the_example_event_for_event(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """The first example of the README starts, gives its tokens in order, and ends, once each."""
    answer = vllm.answer(HELLO)

    with adapter.submit(TaskRequest(model=MODEL, **HELLO)) as stream:
        started, *middle, end = stream

    tokens = [event for event in middle if isinstance(event, Token)]
    assert tokens == middle
    assert isinstance(started, Started)
    assert isinstance(end, End)
    assert started.engine_version == "0.32.0"
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert "".join(token.text for token in tokens) == answer["choices"][0]["text"]
    assert end.finish_reason == answer["choices"][0]["finish_reason"]
    assert end.metrics.tokens_generated == answer["usage"]["completion_tokens"]


@pytest.mark.parametrize("parameters", [HELLO, GREEDY], ids=["seeded", "greedy"])
def test_an_answer_can_be_had_again(adapter: VllmHttpAdapter, parameters: dict[str, Any]) -> None:
    """The same seed gives the same text twice, and so does temperature 0 without a seed."""
    first, second = (text(adapter, **parameters) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("parameters", [HELLO, GREEDY], ids=["seeded", "greedy"])
def test_tokens_are_counted_as_the_engine_counts(
    adapter: VllmHttpAdapter, vllm: Server, parameters: dict[str, Any]
) -> None:
    """Our count, the engine's usage without streaming, and the token ids that came agree."""
    usage = vllm.answer(parameters)["usage"]

    task = TaskRequest(model=MODEL, extra_body={"return_token_ids": True}, **parameters)
    with adapter.submit(task) as stream:
        events = list(stream)

    end = events[-1]
    assert isinstance(end, End)
    ids = [i for event in events if isinstance(event, Token) for i in event.token_ids or []]
    assert len(ids) == end.metrics.tokens_generated == usage["completion_tokens"]
    assert end.metrics.tokens_in == usage["prompt_tokens"]


@pytest.mark.parametrize("prompt", ["今天天气很好 我们去", "😀😃😄😁"], ids=["chinese", "emoji"])
def test_characters_of_several_bytes_arrive_intact(
    adapter: VllmHttpAdapter, vllm: Server, prompt: str
) -> None:
    """A character that the engine makes of several tokens is the same in a stream as without."""
    parameters: dict[str, Any] = {"prompt": prompt, "max_tokens": 40, "temperature": 0.0}
    whole = vllm.answer(parameters)["choices"][0]["text"]

    assert not whole.isascii()
    assert text(adapter, **parameters) == whole


def test_a_text_that_was_asked_for_arrives_to_the_letter(adapter: VllmHttpAdapter) -> None:
    """Where the engine may give one answer only, that is the text, whatever its script."""
    only = {"structured_outputs": {"choice": [JAPANESE]}}

    assert text(adapter, prompt="Say:", max_tokens=60, extra_body=only) == JAPANESE


def test_chat_by_messages(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """A task with messages gives the answer that the chat route gives without streaming."""
    parameters: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Name three colours."}],
        "max_tokens": 24,
        "temperature": 0.0,
    }
    answer = vllm.answer(parameters, "/v1/chat/completions")

    streamed = text(adapter, **parameters)

    assert streamed == answer["choices"][0]["message"]["content"]


def test_sixteen_at_once(
    adapter: VllmHttpAdapter, vllm: Server, measured: Callable[[str], None]
) -> None:
    """The engine has 16 tasks at the same time, and is sooner done than with one after another."""
    task = TaskRequest(model=MODEL, extra_body={"ignore_eos": True}, **{**GREEDY, "max_tokens": 64})
    began = time.monotonic()
    adapter.submit(task).result()
    one = time.monotonic() - began

    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(adapter.submit(task)) for _ in range(16)]
        for stream in streams:
            next(event for event in stream if isinstance(event, Token))
        at_once = vllm.running_once_it_is(16)
        ends = [stream.result().finish_reason for stream in streams]
    part = (time.monotonic() - began) / (16 * one)

    measured(f"16 tasks at once took {part:.2f} of 16 times one ({one:.1f} s)")
    assert (at_once, ends) == (16, ["length"] * 16)
    assert part < 1.0
