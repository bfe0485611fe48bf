"""What comes beside the text: token ids, logprobs, tool calls, reasoning, the engine's figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from decoding import DONE, decoder, delta, event, text, verdict
from hypothesis import given
from hypothesis import strategies as st
from wire import capture

from vllm_http import (
    AnswerInfo,
    Choice,
    Completion,
    End,
    InvalidRequest,
    Logprob,
    Metrics,
    PromptLogprob,
    RequestMetrics,
    SpeculativeDecoding,
    StreamingError,
    Token,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    WorkerError,
)
from vllm_http._collector import Collector
from vllm_http._decoder import AnswerDecoder, DocumentDecoder
from vllm_http._redact import Redactor
from vllm_http._tool_calls import Piece, ToolCalls


def document(choices: int = 1, max_bytes: int = 1 << 20) -> DocumentDecoder:
    """A decoder of an answer that is not streamed; its adapter's key is `hunter2`."""
    return DocumentDecoder(choices=choices, max_event_bytes=max_bytes, redact=Redactor(["hunter2"]))


def collected(answer: AnswerDecoder, tokens: list[Token]) -> Completion:
    """What a caller gets of it in the end."""
    collector = Collector("job")
    for token in tokens:
        collector.take(token)
    collector.take(End(Metrics(), "stop", choices=answer.choices, info=answer.info))
    return collector.completion()


def call(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    """A piece of a tool call as vLLM streams it."""
    name = more.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"index": index, "function": function, **more}


# Tool calls.


def test_tool_calls_grow_and_come_whole() -> None:
    """Each piece is told at once; End has the calls in order, whatever the pieces' order."""
    stream = decoder()
    tokens = stream.feed(
        delta(role="assistant", content="")
        + delta(tool_calls=[call(0, name="weather", id="a", type="function")])
        + delta(tool_calls=[call(1, '{"city"', name="time", id="b"), call(0, '{"city": "Pa')])
        + delta(tool_calls=[call(0, 'ris"}'), call(1, ": 5}")])
        + delta("tool_calls")
        + DONE
    )

    assert [token.tool_calls for token in tokens] == [
        [ToolCallDelta(0, "a", "weather", "")],
        [ToolCallDelta(1, "b", "time", '{"city"'), ToolCallDelta(0, arguments='{"city": "Pa')],
        [ToolCallDelta(0, arguments='ris"}'), ToolCallDelta(1, arguments=": 5}")],
    ]
    whole = [
        ToolCall("a", "weather", '{"city": "Paris"}', complete=True),
        ToolCall("b", "time", '{"city": 5}', complete=True),
    ]
    assert stream.choices == [Choice(0, "tool_calls", tool_calls=whole)]
    assert collected(stream, tokens).tool_calls == whole
    assert whole[0].parsed() == {"city": "Paris"}
    assert verdict(stream) is None


@pytest.mark.parametrize("arguments", ["", "{", '{"a": 1', '{"a": 1} x', "5", "[1]", "null"])
def test_call_that_is_no_json_object_is_not_complete(arguments: str) -> None:
    """One that was cut by max_tokens, above all."""
    stream = decoder()
    stream.feed(delta(tool_calls=[call(0, arguments, name="f")]) + delta("length") + DONE)

    (one,) = stream.choices[0].tool_calls
    assert (one.arguments, one.complete) == (arguments, False)
    with pytest.raises(ValueError, match=r".*"):
        one.parsed()


def test_call_that_was_cut_behind_its_name_is_not_complete() -> None:
    """vLLM 0.32 makes up an empty object for it; a call without arguments is another matter."""
    cut, whole = decoder(), decoder()
    cut.feed(delta(tool_calls=[call(0, "{}", name="f")]) + delta("length") + DONE)
    whole.feed(delta(tool_calls=[call(0, "{}", name="f")]) + delta("tool_calls") + DONE)

    assert [one.complete for one in cut.choices[0].tool_calls] == [False]
    assert [one.complete for one in whole.choices[0].tool_calls] == [True]


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=3), st.data())
def test_arguments_are_complete_with_their_last_character(value: Any, data: st.DataObject) -> None:
    """However they are cut into pieces, and not before."""
    whole = json.dumps(value, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(whole) - 1))
    calls = ToolCalls()

    calls.take([Piece(0, "id", "f", whole[:cut])])
    assert [one.complete for one in calls.so_far(None)] == [False]
    calls.take([Piece(0, None, None, whole[cut:])])
    (one,) = calls.so_far(None)
    assert (one.complete, one.parsed()) == (True, value)


def test_calls_of_a_failed_stream_are_in_its_partial() -> None:
    """As far as they came."""
    collector = Collector("job")
    collector.take(Token("", 0, tool_calls=[ToolCallDelta(0, "a", "f", '{"x')]))

    assert collector.completion().tool_calls == [ToolCall("a", "f", '{"x')]


def test_completion_as_the_next_message() -> None:
    """With it at their end, the messages are ready for the tool's answer."""
    stream = decoder()
    tokens = stream.feed(
        delta(content="Let me see.")
        + delta(tool_calls=[call(0, "{}", name="f", id="a")])
        + delta("tool_calls")
        + DONE
    )

    assert collected(stream, tokens).message() == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    assert Completion("job", "Hi").message() == {"role": "assistant", "content": "Hi"}


# Reasoning.


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_apart_from_content(name: str) -> None:
    """Under the name of today, and under that of older servers."""
    stream = decoder()
    tokens = stream.feed(
        delta(**{name: "Let me "})
        + delta(**{name: "think."})
        + delta(content="Yes")
        + delta("stop")
        + DONE
    )

    assert [(token.text, token.reasoning) for token in tokens] == [
        ("", "Let me "),
        ("", "think."),
        ("Yes", None),
    ]
    completion = collected(stream, tokens)
    assert (completion.text, completion.reasoning) == ("Yes", "Let me think.")


# Logprobs.

A_LOGPROB = {
    "token": "A",
    "logprob": -0.5,
    "bytes": [65],
    "top_logprobs": [{"token": "A", "logprob": -0.5, "bytes": [65]}],
}


def test_logprobs_of_a_chat_and_of_a_prompt_have_one_form() -> None:
    """A list with one entry for each token, whatever vLLM's form."""
    chat = event(
        choices=[{"index": 0, "delta": {"content": "A"}, "logprobs": {"content": [A_LOGPROB]}}]
    )
    prompt = text(
        "A",
        logprobs={
            "tokens": ["A", "B"],
            "token_logprobs": [None, -0.5],
            "top_logprobs": [None, {"B": -0.5, "C": -2.0}],
            "text_offset": [0, 1],
        },
    )

    (of_chat,) = decoder().feed(chat)
    (of_prompt,) = decoder().feed(prompt)

    assert of_chat.logprobs == [Logprob("A", -0.5, [65], [TopLogprob("A", -0.5, [65])])]
    assert of_prompt.logprobs == [
        Logprob("A", None, None, [], 0),
        Logprob("B", -0.5, None, [TopLogprob("B", -0.5), TopLogprob("C", -2.0)], 1),
    ]


def test_logprobs_and_ids_of_a_completion_are_all_of_them() -> None:
    """In order, over all its tokens."""
    tokens = [
        Token("a", 0, token_ids=[1, 2], logprobs=[Logprob("a"), Logprob("b")]),
        Token("", 1, token_ids=[3], logprobs=[Logprob("c")]),
    ]
    (choice,) = collected(decoder(), tokens).choices

    assert choice.token_ids == [1, 2, 3]
    assert choice.logprobs == [Logprob("a"), Logprob("b"), Logprob("c")]
    assert [tokens[0].token_ids, len(tokens[0].logprobs or ())] == [[1, 2], 2]


# Of the prompt, and of the engine.


def test_prompts_token_ids_of_each_choice() -> None:
    """They come in the choice with prompts, beside the choices with a chat."""
    prompts = decoder(choices=2)
    prompts.feed(text("a", prompt_token_ids=[1]) + text("b", index=1, prompt_token_ids=[2]))
    prompts.feed(text("c", prompt_token_ids=None))
    chat = decoder(choices=2)
    for index in (0, 1):
        chat.feed(event(choices=[{"index": index, "delta": {}}], prompt_token_ids=[7, 8]))

    assert [choice.prompt_token_ids for choice in prompts.choices] == [[1], [2]]
    assert [choice.prompt_token_ids for choice in chat.choices] == [[7, 8], [7, 8]]


def test_engine_says_who_it_is() -> None:
    """The model with the first chunk, the fingerprint with the last."""
    stream = decoder()
    assert stream.info is None

    stream.feed(event(choices=[{"index": 0, "delta": {}}], model="m", prompt_text="<user>Hi"))
    assert stream.info == AnswerInfo("m", None, "<user>Hi")

    stream.feed(event(choices=[], usage={}, model="m", system_fingerprint="vllm-0.32.0"))
    assert stream.info == AnswerInfo("m", "vllm-0.32.0", "<user>Hi")


def test_engines_own_times() -> None:
    """With the usage of a server that tells them; in another form they are left out."""
    stream = decoder()
    speculative = {"draft_acceptance_rate": 0.5, "acceptance_histogram": [1, 2], "more": 1}
    times = {"time_to_first_token_ms": 92.5, "speculative_decoding": speculative}
    stream.feed(event(choices=[], usage={"prompt_tokens": 1}, metrics=times))

    assert stream.metrics == RequestMetrics(
        time_to_first_token_ms=92.5,
        speculative_decoding=SpeculativeDecoding(
            draft_acceptance_rate=0.5, acceptance_histogram=[1, 2]
        ),
    )
    stream.feed(event(choices=[], usage={"prompt_tokens": 1}, metrics={"queue_time_ms": "soon"}))
    assert stream.failure is None
    later = stream.metrics
    assert later is None


def test_recorded_times() -> None:
    """As vLLM 0.32 sends them."""
    stream = decoder()
    stream.feed(capture("B-tools-auto-stream").body)

    assert stream.metrics is not None
    assert stream.metrics.time_to_first_token_ms == 92.38697699993281
    assert stream.info is not None
    assert (stream.info.model, stream.info.system_fingerprint) == (
        "smollm2",
        "vllm-0.32.0-aa7729d8",
    )


# Answers that are not streamed.


def read(name: str, choices: int = 1) -> tuple[DocumentDecoder, list[Token]]:
    """A recorded answer, its body in two pieces."""
    body = capture(name).body
    answer = document(choices)
    assert answer.feed(body[:100]) + answer.feed(body[100:]) == []
    assert not answer.begun
    tokens = answer.feed(b"")
    answer.finish()
    return answer, tokens


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("A-completions-plain", None),
        ("A-chat-plain", None),
        ("A-completions-n2", None),
        ("A-completions-two-prompts", None),
        ("A-completions-use-beam", [" Paris.", " Paris.\n- The United States has"]),
    ],
)
def test_whole_answer_is_one_token_a_choice(name: str, texts: list[str] | None) -> None:
    """With the finish reasons and the usage that came with it."""
    recorded = json.loads(capture(name).body)
    said = [c.get("text", c.get("message", {}).get("content")) for c in recorded["choices"]]
    answer, tokens = read(name, len(said))

    assert [(token.text, token.index, token.choice) for token in tokens] == [
        (words, 0, number) for number, words in enumerate(said)
    ]
    assert texts in (None, said)
    assert [c.finish_reason for c in answer.choices] == [
        c["finish_reason"] for c in recorded["choices"]
    ]
    assert answer.tokens_generated == recorded["usage"]["completion_tokens"]
    assert answer.info == AnswerInfo("smollm2", recorded["system_fingerprint"])
    assert (answer.done, answer.over, answer.begun) == (True, True, True)


@pytest.mark.parametrize(
    ("name", "reason"), [("B-tools-named", "stop"), ("B-tools-required", "tool_calls")]
)
def test_tool_calls_of_a_whole_answer(name: str, reason: str) -> None:
    """A named function's answer says "stop", a required one's "tool_calls"."""
    answer, tokens = read(name)

    (choice,) = collected(answer, tokens).choices
    (one,) = choice.tool_calls
    assert (one.name, one.parsed(), one.complete) == ("get_weather", {"city": "Paris"}, True)
    assert one.id.startswith("chatcmpl-tool-")
    assert (choice.finish_reason, choice.text) == (reason, "")


@pytest.mark.parametrize("name", ["A-completions-logprobs2", "A-chat-logprobs"])
def test_logprobs_of_a_whole_answer(name: str) -> None:
    """Two likeliest for each token, as was asked."""
    _, (token,) = read(name)

    assert token.logprobs is not None
    assert "".join(one.token for one in token.logprobs) == token.text
    for one in token.logprobs:
        assert len(one.top_logprobs) == 2
        assert TopLogprob(one.token, one.logprob or 0, one.bytes) in one.top_logprobs


def test_prompt_logprobs() -> None:
    """None for the first token; then those that were likely, and the one that stands there."""
    answer, tokens = read("A-completions-prompt-logprobs")

    (choice,) = collected(answer, tokens).choices
    assert choice.prompt_logprobs is not None
    first, second, *rest = choice.prompt_logprobs
    assert first is None
    assert second == [
        PromptLogprob(3575, -11.70806884765625, 3121, " capital"),
        PromptLogprob(29, -0.8330687284469604, 1, "-"),
    ]
    assert [place and place[0].decoded_token for place in rest] == [" of", " France", " is"]


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", StreamingError, "answer was cut"),
        (b'{"choices": [', StreamingError, "answer was cut"),
        (b'{"choices": [}', StreamingError, "engine sent an answer that is not vLLM's"),
        (b"<html>", StreamingError, "engine sent an answer that is not vLLM's"),
        (b"{}", StreamingError, "answer is incomplete: 1 of 1 choices"),
        (b'{"choices": [{"text": "a"}]}', StreamingError, "answer is incomplete: 1 of 1 choices"),
        (
            b'{"choices": [{"text": "", "finish_reason": "abort"}]}',
            StreamingError,
            "engine aborted the request",
        ),
        (
            b'{"error": {"message": "no hunter2", "code": 400}}',
            InvalidRequest,
            "engine answered 400: no ",
        ),
    ],
)
def test_whole_answer_that_is_none(body: bytes, kind: type[WorkerError], said: str) -> None:
    """It is an error, never an empty answer."""
    answer = document()
    answer.feed(body)
    answer.feed(b"")

    with pytest.raises(kind) as caught:
        answer.finish()

    assert caught.value.message.startswith(said)
    assert "hunter2" not in caught.value.message


def test_whole_answer_that_is_too_large() -> None:
    """Nothing more of it is kept."""
    answer = document(max_bytes=10)

    assert answer.feed(b"x" * 11) == []
    assert answer.over
    assert answer.feed(b"") == []
    with pytest.raises(StreamingError, match="of more than 10 bytes"):
        answer.finish()
