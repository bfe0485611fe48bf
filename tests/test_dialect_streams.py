"""Odd servers, as the caller of an adapter meets them: what is tried again, and what is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import support
from support import ONCE, QUICKLY, SOON, a_task, posts, the_error

from vllm_http import (
    AnswerInfo,
    Completion,
    EngineUnavailable,
    Error,
    InvalidRequest,
    StreamingError,
    TaskRequest,
    Token,
    VllmHttpAdapter,
)
from vllm_http.testing import (
    Cut,
    Done,
    EndBody,
    ErrorEvent,
    Event,
    FakeEngine,
    Finish,
    Raw,
    Stall,
    Step,
    Text,
)


engine, adapter = support.engine, support.adapter


def a_chat() -> TaskRequest:
    """A chat that the engine accepts."""
    return a_task(prompt=None, messages=[{"role": "user", "content": "Hi"}])


def chat_event(delta: dict[str, Any], finish: str | None = None, **beside: Any) -> Event:
    """An event of a chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return Event({"choices": [choice], **beside})


def role(**beside: Any) -> Event:
    """The event that opens a chat's answer."""
    return chat_event({"role": "assistant", "content": ""}, **beside)


# What is tried again.


NOTHING: list[Event] = [
    chat_event({"role": "assistant", "content": ""}, finish=""),
    Event({"choices": [{"index": 0, "text": "", "finish_reason": "", "stop_reason": ""}]}),
    Event({"choices": [{"index": 0, "delta": ""}], "model": "", "error": "", "usage": ""}),
]


@pytest.mark.parametrize("nothing", NOTHING, ids=["role", "text", "all"])
@pytest.mark.parametrize("end", [Cut("fin"), Cut("rst"), EndBody()], ids=["fin", "rst", "end"])
def test_an_attempt_that_said_nothing_is_tried_again(
    engine: FakeEngine, nothing: Event, end: Step
) -> None:
    """A role and an empty finish_reason are nothing."""
    engine.script(nothing, end)
    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        result = adapter.submit(a_task()).result(timeout=SOON)

    assert result.metrics is not None
    assert (result.finish_reason, result.metrics.attempts) == ("length", 2)


def test_a_ping_costs_no_second_request(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Nor does a last line without its blank line."""
    engine.script(
        Raw(b"event: ping\ndata: 2024-01-01T00:00:00Z\n\n"),
        Text("a"),
        Finish(),
        Raw(b"data: [DONE]"),
        EndBody(),
    )

    assert adapter.submit(a_task()).result(timeout=SOON).text == "a"
    assert len(posts(engine)) == 1


def test_a_refusal_in_words_is_the_callers(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A code as text is no reason for four requests."""
    engine.script(Event({"error": {"message": "too long", "code": "400"}}), Done(), EndBody())

    error = the_error(adapter.submit(a_task()))

    assert isinstance(error, InvalidRequest)
    assert len(posts(engine)) == 1


def test_an_engine_that_was_killed_may_be_asked_again(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """What had come stays; the task was good, and its caller may hope."""
    dead = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    engine.script(Text("a"), ErrorEvent(dead, 400, "BadRequestError"), Done(), EndBody())

    stream = adapter.submit(a_task())
    with pytest.raises(EngineUnavailable, match="EngineCore") as caught:
        stream.result(timeout=SOON)

    assert caught.value.retriable
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


# What was told before a failure.


FACTS: list[tuple[TaskRequest, list[Any]]] = [
    (
        a_chat(),
        [
            role(prompt_token_ids=[1, 2, 3], prompt_text="<user>Hi", model="m"),
            chat_event({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1}),
        ],
    ),
    (
        a_task(),
        [
            Event({"choices": [{"text": "", "prompt_token_ids": [1, 2, 3]}], "model": "m"}),
            Event({"choices": [{"text": "a"}], "usage": {"prompt_tokens": 3}}),
        ],
    ),
]


@pytest.mark.parametrize(("task", "steps"), FACTS, ids=["chat", "completions"])
@pytest.mark.parametrize("way", ["result", "iterated", "map"])
def test_facts_that_came_are_told_with_the_failure(
    engine: FakeEngine, task: TaskRequest, steps: list[Any], way: str
) -> None:
    """The prompt's ids and text, the model and the counts, whichever way the answer is taken."""
    engine.script(*steps, Cut("fin"))
    told: Completion | Error
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        if way == "iterated":
            *_, last = adapter.submit(task)
            assert isinstance(last, Error)
            told = last
        elif way == "map":
            (told,) = adapter.map([task])
        else:
            with pytest.raises(StreamingError) as caught:
                adapter.submit(task).result(timeout=SOON)
            assert caught.value.partial is not None
            told = caught.value.partial

    assert told.choices[0].prompt_token_ids == [1, 2, 3]
    assert told.info is not None
    assert (told.info.model, told.info.prompt_text) == (
        "m",
        "<user>Hi" if task.endpoint == "chat" else None,
    )
    assert told.metrics is not None
    assert (told.metrics.tokens_in, told.metrics.attempts) == (3, 1)


def test_calls_of_a_failed_stream_are_whole_in_its_partial(engine: FakeEngine) -> None:
    """One without arguments is not complete: more might have come."""
    calls = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"index": 0, "id": "b", "function": {"name": "g", "arguments": ""}},
    ]
    engine.script(role(), chat_event({"tool_calls": calls}), Cut("fin"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        (failed,) = adapter.map([a_chat()])

    assert [(call.id, call.complete) for call in failed.tool_calls] == [("a", True), ("b", False)]


def test_facts_are_told_with_a_cancel(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """As with any other end."""
    engine.script(role(prompt_token_ids=[1], model="m"), chat_event({"content": "a"}), Stall())
    stream = adapter.submit(a_chat())
    while (event := stream.get(timeout=SOON)) is not None:
        if event.type == "token":
            stream.cancel()

    (choice,) = stream.result().choices
    assert choice.prompt_token_ids == [1]
    assert stream.result().info == AnswerInfo("m")


# What the model says in another way.


def test_a_refusal_is_in_all_that_is_told(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """In the tokens, the completion, their JSON, and the message that goes on."""
    steps: list[Step] = [
        chat_event({"refusal": "I can"}),
        chat_event({"refusal": "not."}, "stop"),
        Done(),
    ]
    engine.script(role(), *steps)
    engine.script(role(), *steps)
    tokens = [event for event in adapter.submit(a_chat()) if isinstance(event, Token)]
    result = adapter.submit(a_chat()).result(timeout=SOON)

    assert [token.refusal for token in tokens] == ["I can", "not."]
    assert result.refusal == result.choices[0].refusal == "I cannot."
    assert json.loads(result.to_json())["choices"][0]["refusal"] == "I cannot."
    assert result.message() == {"role": "assistant", "content": "", "refusal": "I cannot."}


def test_reasoning_goes_back_where_that_is_wanted(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """Models that think between calls go on with their thoughts; vLLM reads them as `reasoning`."""
    call = {"index": 0, "id": "a", "function": {"name": "now", "arguments": ""}}
    engine.script(
        role(),
        chat_event({"reasoning": "The time "}),
        chat_event({"reasoning_content": "first."}),
        chat_event({"tool_calls": [call]}, "tool_calls"),
        Done(),
    )

    result = adapter.submit(a_chat()).result(timeout=SOON)

    (asked,) = result.message()["tool_calls"]
    assert asked["function"] == {"name": "now", "arguments": "{}"}
    assert "reasoning" not in result.message()
    assert result.message(reasoning=True)["reasoning"] == "The time first."
    assert Completion("job", "Hi").message(reasoning=True) == {"role": "assistant", "content": "Hi"}


def test_counts_of_an_engine_that_was_not_asked_are_the_clients(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """And they say so."""
    result = adapter.submit(a_task(include_usage=False)).result(timeout=SOON)

    (post,) = posts(engine)
    assert "stream_options" not in post.json
    assert result.metrics is not None
    assert (result.metrics.tokens_generated, result.metrics.usage_source) == (5, "client")
