"""What servers send that is almost vLLM's: an answer that is whole is not lost to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from decoding import DONE, decoder, delta, event, read, text, texts, verdict

from vllm_http import StreamingError


# "" is null.

NULLS: list[dict[str, Any]] = [
    {"delta": {"role": "assistant", "content": ""}, "finish_reason": ""},
    {"text": "", "finish_reason": "", "stop_reason": "", "logprobs": "", "token_ids": ""},
    {"delta": {"content": "", "reasoning": "", "tool_calls": "", "refusal": ""}},
    {"delta": "", "message": "", "text": "", "index": ""},
    {"delta": {"function_call": "", "reasoning_content": ""}, "prompt_token_ids": ""},
    {"delta": {"tool_calls": [{"index": "", "id": "", "function": {"name": "", "arguments": ""}}]}},
]


@pytest.mark.parametrize("choice", NULLS, ids=json.dumps)
def test_empty_text_is_null_in_every_field(choice: dict[str, Any]) -> None:
    """It says nothing: no content, and no reason not to try again."""
    stream = decoder()

    tokens = stream.feed(event(choices=[choice], usage="", error="", model="", metrics=""))

    assert (tokens, stream.failure, stream.begun) == ([], None, False)
    assert stream.usage is None
    assert stream.info is not None
    assert stream.info.model is None


def test_empty_reason_ends_no_choice() -> None:
    """An answer all of whose reasons are empty is not whole."""
    stream = decoder()
    stream.feed(text("a", "") + DONE)

    error = verdict(stream)

    assert isinstance(error, StreamingError)
    assert "1 of 1 choices had no finish_reason" in error.message


def test_empty_stop_reason_is_none_and_0_is_a_token() -> None:
    """Only the empty text says nothing."""
    for sent, told in (("", None), (0, 0), ("x", "x")):
        stream = decoder()
        stream.feed(text("a", "stop", stop_reason=sent))

        assert stream.choices[0].stop_reason == told


@pytest.mark.parametrize("error", ["", None, False, {}, []])
def test_an_empty_error_is_none(error: Any) -> None:
    """Some gateways have the member in every event."""
    _, tokens = read(event(choices=[{"text": "a"}], error=error), event(choices=[], error=error))

    assert texts(tokens) == ["a"]


# Which of text, delta and message says something.


@pytest.mark.parametrize("empty", ["", None])
def test_what_says_something_is_read_whatever_stands_beside_it(empty: str | None) -> None:
    """An empty `text` or `delta` does not hide the words of another."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    quiet = {"role": "assistant", "content": empty}
    _, tokens = read(
        event(choices=[{"text": empty, "delta": {"content": "a"}}]),
        event(choices=[{"text": empty, "delta": {"reasoning": "b"}}]),
        event(choices=[{"text": empty, "delta": {"tool_calls": [call]}}]),
        event(choices=[{"text": "c", "delta": quiet}]),
        event(choices=[{"text": "d", "delta": {"content": "d", "reasoning": "e"}}]),
    )

    assert [(token.text, token.reasoning) for token in tokens] == [
        ("a", None),
        ("", "b"),
        ("", None),
        ("c", None),
        ("d", "e"),
    ]
    assert tokens[2].tool_calls is not None


def test_a_message_beside_an_empty_delta_is_the_answer() -> None:
    """Unless deltas have brought it already; then it is the whole once more."""
    whole = {"content": "ab"}
    _, alone = read(event(choices=[{"delta": {"content": ""}, "message": whole}]))
    _, again = read(
        delta(content="a"),
        delta(content="b"),
        event(choices=[{"delta": {"content": ""}, "message": whole}]),
    )

    assert (texts(alone), texts(again)) == (["ab"], ["a", "b"])


def test_two_texts_that_differ_are_an_error() -> None:
    """Whichever was taken, the other would be lost."""
    stream = decoder()
    stream.feed(event(choices=[{"text": "a", "delta": {"content": "b"}}]))

    error = verdict(stream)

    assert isinstance(error, StreamingError)
    assert "differ" in error.message


# A refusal of the model's, and content that is not read.


def test_a_refusal_is_told() -> None:
    """Under OpenAI's name, in pieces and whole; it is content."""
    stream = decoder()
    tokens = stream.feed(delta(refusal="I can") + delta(refusal="not.") + delta("stop") + DONE)

    assert [(token.text, token.refusal) for token in tokens] == [("", "I can"), ("", "not.")]
    assert (stream.begun, verdict(stream)) == (True, None)


@pytest.mark.parametrize("member", ["audio", "images", "transcript"])
def test_an_answer_of_which_nothing_is_read_is_no_success(member: str) -> None:
    """It says where the answer is; beside text it takes nothing away."""
    other: dict[str, Any] = {member: {"data": "UklG"}}
    stream = decoder()
    stream.feed(delta(**other) + delta("stop") + DONE)
    _, tokens = read(delta(**other), delta(content="a"))

    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert f"delta.{member}" in error.message
    assert error.retriable is False
    assert texts(tokens) == ["a"]


def test_an_answer_in_events_of_another_type_is_no_success() -> None:
    """By the rules they are not the answer's; whoever looks finds what they are called."""
    stream = decoder()
    stream.feed(b"event: delta\n" + delta(content="a") + delta("stop") + DONE)

    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert error.message == "engine sent its answer in events of type 'delta', which is not read"
    assert error.retriable is False


@pytest.mark.parametrize("end", [DONE, b""], ids=["done", "end"])
def test_an_answer_of_another_api_is_no_success(end: bytes) -> None:
    """Anthropic's and OpenAI's Responses have types and no choices; another try brings the same."""
    started = {"type": "message_start", "message": {"content": []}}
    stream = decoder()
    stream.feed(b"event: message_start\n" + event(**started))
    stream.feed(b"event: text\n" + event(type="text", delta={"text": "a"}) + end)

    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert error.message == "engine sent its answer in events of type 'text', which is not read"
    assert error.retriable is False


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"content": "a", "stop": False}, "content"),
        ({"type": "response.output_text.delta", "delta": "a"}, "delta"),
        ({"token": {"text": "a"}, "generated_text": None}, "token"),
        ({"data": {"choices": []}}, "data"),
    ],
)
def test_events_without_choices_alone_are_no_answer(said: dict[str, Any], name: str) -> None:
    """Where the engine says that this was all; a heartbeat before a real answer is none."""
    stream = decoder()
    stream.feed(event(type="ping") + event(**said) + DONE)
    alone, tokens = read(event(**said))

    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert f"engine sent events with {name} and without choices" in error.message
    assert error.retriable is False
    assert (tokens, verdict(alone)) == ([], None)


@pytest.mark.parametrize("said", [{"type": "ping", "time": "12:00"}, {"type": "ping"}, {}])
def test_a_heartbeat_before_a_cut_forbids_no_other_try(said: dict[str, Any]) -> None:
    """Nothing was said."""
    stream = decoder()
    stream.feed(event(**said))

    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert error.retriable is True


def test_an_engine_that_cancels_has_not_answered() -> None:
    """`finish_reason` "cancelled" is told of what the caller cancelled, and of nothing else."""
    stream = decoder()
    stream.feed(text("a", "cancelled") + DONE)

    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert "aborted the request (finish_reason cancelled)" in error.message
