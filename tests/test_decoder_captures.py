"""The decoder over every stream recorded from a real vLLM, whole and in pieces."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import pytest
from decoding import decoder, verdict
from hypothesis import given
from hypothesis import strategies as st
from wire import LARGE_STREAMS, SMALL_STREAMS, STREAMS, capture, cut, cuts, halves, single_bytes

from vllm_http import Choice, EngineUnavailable, InvalidRequest, StreamingError, Token, WorkerError
from vllm_http._chunk import Usage
from vllm_http._chunked import ChunkedBody


CHOICES = {
    "A-chat-n2-stream": 2,
    "A-completions-n2-stream": 2,
    "A-completions-two-prompts-stream": 2,
}

Failure: TypeAlias = tuple[type[WorkerError], int | None, bool, str]

# Large recordings, one of each kind.
VARIED = [
    "A-completions-n2-stream",
    "A-completions-two-prompts-stream",
    "A-completions-eos-stream",
    "B-abort-stream",
    "B-kill9-enginecore-stream",
    "B-queue-7",
    "B-tools-auto-stream",
    "G-preempt-0",
    "H-omitted-max-tokens-stream-usage",
]

CUT = (StreamingError, None, True, "stream was cut: it ended without [DONE]")
DEAD = (EngineUnavailable, 500, True, "engine answered 500: EngineCore encountered an issue. ")
ABORTED = (StreamingError, None, True, "engine aborted the request (finish_reason abort)")

# All others end honestly.
FAILURES: dict[str, Failure] = {
    "B-abort-stream": ABORTED,
    "B-kill9-enginecore-chat-stream": DEAD,
    "B-kill9-enginecore-stream": DEAD,
    "D-sigterm-drain10-chat-stream": CUT,
    "D-sigterm-drain10-stream": CUT,
    "I-stream-bad-regex": (InvalidRequest, 400, False, "engine answered 400: Grammar error: "),
    "I-stream-bad-schema": (InvalidRequest, 400, False, "engine answered 400: Grammar error: "),
    "I-stream-token-out-of-vocab": (InvalidRequest, 400, False, "engine answered 400: Token id"),
}


class Decoded(NamedTuple):
    """All that a decoder tells."""

    tokens: list[Token]
    choices: list[Choice]
    usage: Usage | None
    done: bool
    content: int
    begun: bool
    tokens_generated: int
    failure: Failure | None


def decoded(name: str, pieces: list[bytes]) -> Decoded:
    """What the decoder makes of a recording in these pieces."""
    stream = decoder(CHOICES.get(name, 1))
    tokens = [token for piece in pieces for token in stream.feed(piece)]
    error = verdict(stream)
    return Decoded(
        tokens,
        stream.choices,
        stream.usage,
        stream.done,
        stream.content,
        stream.begun,
        stream.tokens_generated,
        None if error is None else (type(error), error.status, error.retriable, error.message),
    )


@cache
def whole(name: str) -> Decoded:
    """What the decoder makes of a recording in one piece."""
    return decoded(name, [capture(name).body])


def recorded_choices(name: str) -> list[dict[str, Any]]:
    """The choices of all events, in order, read without any care."""
    return [choice for event in capture(name).events for choice in event.get("choices", [])]


def text_of(choice: dict[str, Any]) -> str:
    """A choice's text, be it of a completion or a chat."""
    return choice.get("text") or choice.get("delta", {}).get("content") or ""


# Every recording.


def test_the_special_recordings_are_there() -> None:
    """The tables above name recordings that exist, and the recordings are many."""
    assert FAILURES.keys() | CHOICES.keys() <= set(STREAMS)
    assert len(STREAMS) >= 61


@pytest.mark.parametrize("name", STREAMS)
def test_text_is_the_recorded_one(name: str) -> None:
    """The tokens of a choice, joined, are its text; nothing is lost, repeated or moved."""
    expected: dict[int, str] = defaultdict(str)
    for choice in recorded_choices(name):
        expected[choice["index"]] += text_of(choice)
    actual: dict[int, str] = {choice["index"]: "" for choice in recorded_choices(name)}
    for token in whole(name).tokens:
        actual[token.choice] += token.text

    assert actual == expected


@pytest.mark.parametrize("name", STREAMS)
def test_indices_have_no_gap(name: str) -> None:
    """Within each choice the tokens are numbered 0, 1, 2, ..."""
    indices = defaultdict(list)
    for token in whole(name).tokens:
        indices[token.choice].append(token.index)

    assert dict(indices) == {key: [*range(len(value))] for key, value in indices.items()}


@pytest.mark.parametrize("name", STREAMS)
def test_a_token_holds_something(name: str) -> None:
    """An empty delta makes no token, unless token ids or logprobs come with it."""
    recorded = [
        choice
        for choice in recorded_choices(name)
        if text_of(choice) or choice.get("token_ids") or choice.get("logprobs")
    ]

    assert [(token.choice, token.text, token.token_ids) for token in whole(name).tokens] == [
        (choice["index"], text_of(choice), choice.get("token_ids")) for choice in recorded
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_finish_reasons_are_the_recorded_ones(name: str) -> None:
    """Each choice ends as vLLM said, with the stop reason beside it."""
    expected = {index: Choice(index) for index in range(CHOICES.get(name, 1))}
    for choice in recorded_choices(name):
        if choice["finish_reason"]:
            index = choice["index"]
            expected[index] = Choice(index, choice["finish_reason"], choice.get("stop_reason"))

    assert [(c.index, c.finish_reason, c.stop_reason) for c in whole(name).choices] == [
        (c.index, c.finish_reason, c.stop_reason) for c in expected.values()
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_usage_is_the_last_recorded_one(name: str) -> None:
    """Running totals and the final count alike: the latest holds."""
    usages = [event["usage"] for event in capture(name).events if event.get("usage")]
    actual = whole(name).usage

    if not usages:
        assert actual is None
        return
    assert actual is not None
    assert (actual.prompt_tokens, actual.completion_tokens) == (
        usages[-1]["prompt_tokens"],
        usages[-1]["completion_tokens"],
    )
    assert whole(name).tokens_generated == usages[-1]["completion_tokens"]


@pytest.mark.parametrize("name", STREAMS)
def test_verdict(name: str) -> None:
    """Whoever was answered gets no error; whoever was not gets the right one."""
    actual = whole(name).failure

    if name not in FAILURES:
        assert actual is None
        return
    assert actual is not None
    assert actual[:3] == FAILURES[name][:3]
    assert actual[3].startswith(FAILURES[name][3])


@pytest.mark.parametrize("name", STREAMS)
def test_done_has_come_unless_the_stream_was_cut_or_failed(name: str) -> None:
    """[DONE] follows whatever ends on its own; what comes after an error is not looked at."""
    failed = name in FAILURES and FAILURES[name] != ABORTED

    assert whole(name).done is not failed


# Some recordings.


@pytest.mark.parametrize("name", ["B-kill9-enginecore-stream", "D-sigterm-drain10-stream"])
def test_tokens_before_a_failure_are_given(name: str) -> None:
    """What arrived before the engine died was real."""
    assert len(whole(name).tokens) > 10
    assert whole(name).begun


@pytest.mark.parametrize("name", ["B-kill9-enginecore-chat-stream", "I-stream-bad-regex"])
def test_a_failure_before_any_content_may_be_tried_again(name: str) -> None:
    """Keep-alive comments and an error are no content."""
    assert (whole(name).tokens, whole(name).content, whole(name).begun) == ([], 0, False)


def test_chinese_text_is_whole() -> None:
    """No character is broken, though vLLM makes some of several tokens."""
    tokens = whole("A-completions-chinese-stream").tokens

    assert [token.text for token in tokens if token.text] == ["\uff01"] * 6
    assert len(tokens) == 12  # the other halves have no text, only logprobs


def test_stop_string_is_named() -> None:
    """The stop string that ended a choice is its stop reason."""
    recorded = recorded_choices("A-completions-stop-stream")[-1]["stop_reason"]
    (choice,) = whole("A-completions-stop-stream").choices

    assert isinstance(recorded, str)
    assert (choice.finish_reason, choice.stop_reason) == ("stop", recorded)


@pytest.mark.parametrize(
    "name", ["A-completions-return-token-ids-stream", "C-inference-generate-stream"]
)
def test_token_ids_are_counted(name: str) -> None:
    """Without usage, the token ids say how many tokens the model made."""
    ids = [id for choice in recorded_choices(name) for id in choice["token_ids"] or ()]

    assert len(ids) > 0
    assert [id for token in whole(name).tokens for id in token.token_ids or ()] == ids
    assert whole(name).tokens_generated == len(ids)


def test_cached_tokens_are_known() -> None:
    """With its flag, vLLM says how much of the prompt came from the prefix cache."""
    usage = whole("C-prefix-2-stream").usage

    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (601, 512)


def test_tool_calls_are_content_without_tokens() -> None:
    """A tool call is an answer, though it is no text."""
    recorded = [c for c in recorded_choices("B-tools-auto-stream") if c["delta"].get("tool_calls")]
    result = whole("B-tools-auto-stream")

    assert result.content == len(result.tokens) + len(recorded)


# In pieces.


@pytest.mark.parametrize("name", SMALL_STREAMS)
def test_recording_may_be_cut_anywhere(name: str) -> None:
    """Two pieces and single bytes give what one piece gives, wherever the cut is."""
    expected = whole(name)
    body = capture(name).body

    assert decoded(name, single_bytes(body)) == expected
    for pieces in halves(body):
        assert decoded(name, pieces) == expected


def from_wire(name: str, wire: list[bytes]) -> Decoded:
    """What de-chunker and decoder together make of a recording in these pieces."""
    chunks = ChunkedBody()
    return decoded(name, [chunks.feed(piece) for piece in wire])


@pytest.mark.parametrize("name", STREAMS)
def test_recording_may_come_in_packets(name: str) -> None:
    """The wire's bytes, chunk sizes and all, give what the body gives, in pieces of any length."""
    wire = capture(name).wire

    for length in (7, 250, 1448):
        assert from_wire(name, cut(wire, range(length, len(wire), length))) == whole(name)


@pytest.mark.parametrize("name", VARIED)
@given(data=st.data())
def test_large_recording_may_be_cut_at_random(name: str, data: st.DataObject) -> None:
    """Random pieces of the wire give what the body gives at once."""
    assert name in LARGE_STREAMS
    assert from_wire(name, data.draw(cuts(capture(name).wire))) == whole(name)
