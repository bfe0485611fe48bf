"""Odd values beside what is said: they cost nothing else, and what is said is never left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from decoding import decoder, delta, event, raw, read, text, texts, verdict
from hypothesis import given
from hypothesis import strategies as st
from values_support import json_values

from vllm_http import Logprob, PromptLogprob, StreamingError, TopLogprob
from vllm_http._collector import Collector
from vllm_http._decoder import DocumentDecoder
from vllm_http._redact import Redactor
from vllm_http._refusal import refusal_of_answer


# Side fields.


def test_a_number_that_the_engine_had_not_is_none() -> None:
    """vLLM writes null for NaN, also among the likeliest tokens."""
    tops = [{"token": "A", "logprob": None}, {"token": "B", "logprob": -1.5}]
    chat = {"content": [{"token": "A", "logprob": None, "top_logprobs": tops}]}
    prompt = {
        "tokens": ["A"],
        "token_logprobs": [None],
        "top_logprobs": [{"A": None, "B": -1.5}],
    }
    _, tokens = read(
        event(choices=[{"delta": {"content": "A"}, "logprobs": chat}]),
        text("A", logprobs=prompt),
    )

    expected = [Logprob("A", None, None, [TopLogprob("A", None), TopLogprob("B", -1.5)])]
    assert [token.logprobs for token in tokens] == [expected, expected]


@pytest.mark.parametrize(
    ("number", "told"),
    [("NaN", None), ("Infinity", None), ("-Infinity", -9999.0), ("1e999", None), ("-1e999", -9999)],
)
def test_numbers_that_json_has_not(number: str, told: float | None) -> None:
    """Python's own writer makes them; minus infinity is told as vLLM tells it."""
    chat = f'{{"content": [{{"token": "A", "logprob": {number}, "top_logprobs": []}}]}}'
    place = f'[null, {{"5": {{"logprob": {number}, "rank": 1}}}}]'
    stream, (token, *_) = read(
        raw(
            f'{{"choices": [{{"delta": {{"content": "A"}}, "logprobs": {chat}}}],'
            f'"prompt_logprobs": {place}, "kv_transfer_params": {{"x": {number}}}}}'
        )
    )

    assert (token.text, token.logprobs) == ("A", [Logprob("A", told)])
    assert stream.choices[0].prompt_logprobs == [None, [PromptLogprob(5, told, 1)]]


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\uD83D"])
def test_half_a_surrogate_pair_is_a_replacement_character(half: str) -> None:
    """As an escape, in whatever is told; the whole pair is its character."""
    call = f'{{"index": 0, "id": "{half}", "function": {{"name": "f", "arguments": "{half}"}}}}'
    said = f'{{"content": "{half}a", "reasoning": "b{half}", "tool_calls": [{call}]}}'
    _, tokens = read(
        raw(f'{{"choices": [{{"delta": {said}}}], "model": "{half}"}}'),
        raw(f'{{"choices": [{{"text": "{half}"}}]}}'),
        raw(f'{{"choices": [{{"text": "\\ud83d\\ude00{half}"}}]}}'),
    )

    assert texts(tokens) == ["\ufffda", "\ufffd", "\U0001f600\ufffd"]
    assert tokens[0].reasoning == "b\ufffd"
    (piece,) = tokens[0].tool_calls or []
    assert (piece.id, piece.arguments) == ("\ufffd", "\ufffd")


def test_half_a_surrogate_pair_in_an_error() -> None:
    """Its message can be printed."""
    stream = decoder()
    stream.feed(raw('{"error": {"message": "no \\ud83d", "code": 400}}'))
    error = verdict(stream)

    assert error is not None
    assert error.message == "engine answered 400: no \ufffd"


ODD = [
    ({"usage": {"completion_tokens": "5", "prompt_tokens": 7.0}}, {}),
    ({"usage": "x"}, {}),
    ({"usage": {"completion_tokens": [], "prompt_tokens_details": 5}}, {}),
    ({"usage": {"prompt_tokens_details": {"multimodal_tokens": [1]}}}, {}),
    ({"model": 5, "system_fingerprint": {}, "service_tier": [], "created": "now", "id": 5}, {}),
    ({"metrics": "fast", "kv_transfer_params": [1], "ec_transfer_params": "x"}, {}),
    ({"prompt_token_ids": "1,2", "prompt_logprobs": {"0": 1}, "prompt_text": ["x"]}, {}),
    ({}, {"stop_reason": ["x"]}),
    ({}, {"stop_reason": {"id": 5}}),
    ({}, {"token_ids": ["1"]}),
    ({}, {"token_ids": "1"}),
    ({}, {"logprobs": [1]}),
    ({}, {"logprobs": {"content": {"token": "a"}}}),
    ({}, {"logprobs": {"content": [{"logprob": -1.0}, 5]}}),
    ({}, {"logprobs": {"content": [{"token": "a", "logprob": "x", "top_logprobs": {}}]}}),
    ({}, {"logprobs": {"tokens": "a", "token_logprobs": 5, "text_offset": {}}}),
    ({}, {"prompt_token_ids": {"0": 1}}),
    ({}, {"prompt_logprobs": [{"x": {"logprob": -1.0}}, 5]}),
    ({}, {"index": "0"}),
    ({}, {"index": None}),
    ({}, {"index": 0.0}),
]


@pytest.mark.parametrize(("beside", "in_choice"), ODD, ids=json.dumps)
def test_an_odd_side_field_loses_nothing_else(
    beside: dict[str, Any], in_choice: dict[str, Any]
) -> None:
    """It is converted or left out, in a prompt's form and in a chat's."""
    _, tokens = read(
        event(choices=[{"text": "a", **in_choice}], **beside),
        event(choices=[{"delta": {"content": "b"}, **in_choice}], **beside),
        event(choices=[], **beside),
    )

    assert texts(tokens) == ["a", "b"]


SIDE = ["logprobs", "stop_reason", "token_ids", "prompt_token_ids", "prompt_logprobs", "more"]
BESIDE = [
    *("usage", "model", "system_fingerprint", "metrics", "prompt_text", "prompt_token_ids"),
    *("prompt_logprobs", "kv_transfer_params", "ec_transfer_params", "created", "more"),
]
deep = st.recursive(
    json_values | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "tokens", "token", "logprob", "top_logprobs", "0", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(SIDE), deep), st.dictionaries(st.sampled_from(BESIDE), deep))
def test_no_value_of_a_side_field_loses_the_answer(
    in_choice: dict[str, Any], beside: dict[str, Any]
) -> None:
    """Whatever JSON stands there, the text and the end are told."""
    stream, tokens = read(
        event(choices=[{"text": "a", **in_choice}], **beside), event(choices=[], **beside)
    )

    assert texts(tokens)[:1] == ["a"]
    assert stream.choices[0].finish_reason == "stop"
    for token in tokens:
        token.to_json().encode()


@given(deep, st.sampled_from(["text", "delta", "message", "finish_reason", "index"]))
def test_no_value_of_what_is_said_is_left_out(value: Any, member: str) -> None:
    """It is told, or it was null, or the stream fails and says so."""
    stream = decoder()
    tokens = stream.feed(event(choices=[{"text": "a", member: value}]))
    error = verdict(stream) if stream.failure else None

    if error is None and member == "text" and value:
        assert texts(tokens) == [value]
    elif error is None and member == "finish_reason" and value:
        assert stream.choices[0].finish_reason == value
    elif error is None and member in ("delta", "message") and value:
        assert isinstance(value, dict)
    if error is not None:
        assert isinstance(error, StreamingError)
        assert error.message.startswith("engine sent an event that is not a chunk of vLLM's: ")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (event(choices={"0": {}}), "choices: a list is wanted, not an object"),
        (event(choices="x"), "choices: a list is wanted, not text"),
        (event(choices=[5]), "choices[0]: an object is wanted, not a number"),
        (text(5), "choices[0].text: text is wanted, not a number"),  # type: ignore[arg-type]
        (delta(content=["a"]), "choices[0].delta.content: text is wanted, not a list"),
        (
            delta(tool_calls={"0": {}}),
            "choices[0].delta.tool_calls: a list is wanted, not an object",
        ),
        (
            delta(tool_calls=[{"function": {"arguments": 5}}]),
            "choices[0].delta.tool_calls[0].function.arguments: text is wanted, not a number",
        ),
        (text("a", True), "choices[0].finish_reason: text is wanted, not true or false"),  # type: ignore[arg-type]
        (raw('{"choices": [{"text": NaN}]}'), "choices[0].text: text is wanted, not a number"),
        (raw("5"), "the event: an object is wanted, not a number"),
    ],
)
def test_what_is_said_and_broken_is_an_error_that_tells_what_came(broken: bytes, said: str) -> None:
    """An answer in another form is no answer, and no try will change that."""
    stream = decoder()
    stream.feed(broken)

    error = verdict(stream)

    assert isinstance(error, StreamingError)
    assert error.message == f"engine sent an event that is not a chunk of vLLM's: {said}"
    assert error.retriable is False


def test_empty_lists_and_objects_may_stand_for_each_other() -> None:
    """PHP writes an empty object as [], Lua an empty list as {}: neither says anything."""
    _, tokens = read(
        event(choices=[{"text": "a", "delta": [], "message": [], "logprobs": []}], usage=[]),
        delta(content="b", tool_calls={}, function_call=[]),
        delta(content="c", tool_calls=[{"function": []}]),
    )

    assert texts(tokens) == ["a", "b", "c"]


def test_odd_values_in_a_whole_answer_lose_nothing() -> None:
    """Prompt logprobs come in such answers only; a number that is none is None."""
    answer = DocumentDecoder(choices=1, max_event_bytes=1 << 20, redact=Redactor())
    place = (
        '{"5": {"logprob": NaN}, "6": {"logprob": null, "rank": "2", "decoded_token": "\\ud83d"}}'
    )
    choice = f'{{"text": "a", "finish_reason": "stop", "prompt_logprobs": [null, {place}]}}'
    answer.feed(f'{{"choices": [{choice}], "usage": "x"}}'.encode())

    assert texts(answer.feed(b"")) == ["a"]
    answer.finish()
    assert answer.choices[0].prompt_logprobs == [
        None,
        [PromptLogprob(5), PromptLogprob(6, None, 2, "\ufffd")],
    ]


def test_of_a_member_that_comes_twice_the_last_counts() -> None:
    """As in every reader of JSON, and whether the rest is odd or not."""
    once = '{"choices": [{"text": "a", "text": "b"}], "usage": %s}'
    _, tokens = read(raw(once % "null"), raw(once % "5"))

    assert texts(tokens) == ["b", "b"]


def test_numbers_of_any_size_are_read() -> None:
    """In fields that are read and in others."""
    huge = "9" * 5000
    _, tokens = read(
        raw(f'{{"choices": [{{"text": "a", "token_ids": [{2**70}]}}], "created": {huge}}}'),
        raw(f'{{"choices": [{{"text": "b", "stop_reason": {huge}}}], "model": NaN}}'),
    )

    assert texts(tokens) == ["a", "b"]
    assert tokens[0].token_ids == [2**70]


def test_lists_of_logprobs_of_different_lengths_lose_no_token() -> None:
    """What is not told of a token is None."""
    _, (token,) = read(text("ab", logprobs={"tokens": ["a", "b"], "token_logprobs": [-1.0]}))

    assert token.logprobs == [Logprob("a", -1.0), Logprob("b")]


def test_a_count_that_came_stays() -> None:
    """An event that does not repeat it takes nothing back."""
    stream, _ = read(
        event(choices=[{"text": "a"}], usage={"prompt_tokens": 3, "completion_tokens": 1}),
        event(choices=[], usage={"completion_tokens": 2}, system_fingerprint="f"),
        event(choices=[], usage={}),
        event(type="ping"),
    )

    assert stream.usage is not None
    assert (stream.usage.prompt_tokens, stream.tokens_generated) == (3, 2)
    assert stream.info is not None
    assert stream.info.system_fingerprint == "f"


def test_token_ids_with_a_hole_are_none() -> None:
    """Those that are left would pass for all of them; each token still has what came."""
    stream, tokens = read(
        text("a", token_ids=[1]), text("b", token_ids={"2": 2}), text("c", token_ids=["3"])
    )
    collector = Collector("job")
    for token in tokens:
        collector.take(token)

    assert [token.token_ids for token in tokens] == [[1], None, [3]]
    assert collector.completion().token_ids is None
    assert stream.tokens_generated == 2


def whole(document: bytes) -> DocumentDecoder:
    """The decoder of a whole answer, at its end."""
    answer = DocumentDecoder(choices=1, max_event_bytes=1 << 20, redact=Redactor())
    answer.feed(document)
    answer.feed(b"")
    return answer


def test_a_byte_order_mark_before_a_document_is_skipped() -> None:
    """As before a stream, and before a refusal."""
    bom = b"\xef\xbb\xbf"
    answer = whole(bom + b'{"choices": [{"text": "a", "finish_reason": "stop"}]}')
    answer.finish()
    refused = refusal_of_answer(400, {}, bom + b'{"error": {"message": "no"}}', Redactor())

    assert refused.message == "engine answered 400: no"
