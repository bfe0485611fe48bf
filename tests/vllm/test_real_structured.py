"""What an answer has to match, it matches; a tool call is whole, or says that it is not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from vllm_http import Choice, Completion, StructuredOutputs, TaskRequest, VllmHttpAdapter

from .server import MODEL, Server


@dataclass
class City:
    """What is asked for."""

    name: Literal["Paris", "Rome"]
    warm: bool
    founded: Literal[1, 2, 3] | None


WARM = {
    "type": "object",
    "properties": {"warm": {"type": "boolean"}},
    "required": ["warm"],
    "additionalProperties": False,
}
NAMED = {"name": "weather", "schema": WARM}
TAG: dict[str, Any] = {
    "type": "structural_tag",
    "format": {
        "type": "sequence",
        "elements": [
            {"type": "const_string", "value": "Weather: "},
            {"type": "json_schema", "json_schema": WARM},
        ],
    },
}
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "Describe Paris as JSON."}]}

# `strict` is what makes vLLM 0.32 hold the arguments against their schema.
PLACE = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": PLACE, "strict": True}}
    for name in ("get_weather", "get_time")
]
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": TOOLS,
}
THIS_TOOL = {"type": "function", "function": {"name": "get_time"}}


def answer(adapter: VllmHttpAdapter, **fields: Any) -> Completion:
    """The likeliest answer."""
    known: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 120}
    return adapter.submit(TaskRequest(**known | fields)).result()


@pytest.mark.parametrize(
    "wanted",
    [
        {"structured_outputs": StructuredOutputs(json=City)},
        {"structured_outputs": StructuredOutputs(json=City, disable_any_whitespace=True)},
        {"response_format": City},
    ],
    ids=["structured_outputs", "compact", "response_format"],
)
def test_dataclass(adapter: VllmHttpAdapter, wanted: dict[str, Any]) -> None:
    """A dataclass stands for its JSON schema, and the answer makes one."""
    found = answer(adapter, **QUESTION, **wanted)

    city = City(**json.loads(found.text))
    assert found.finish_reason == "stop"
    assert (city.name in ("Paris", "Rome"), type(city.warm)) == (True, bool)
    assert city.founded in (1, 2, 3, None)


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[0-9]{4}-[a-z]{3}"}, "[0-9]{4}-[a-z]{3}"),
        ({"choice": ["warm", "cold"]}, "warm|cold"),
        ({"grammar": 'root ::= "yes" tail\ntail ::= "!" | "?"'}, "yes[!?]"),
        ({"structural_tag": json.dumps(TAG)}, r'Weather: \{\s*"warm"\s*:\s*(true|false)\s*\}'),
    ],
    ids=["regex", "choice", "grammar", "structural_tag"],
)
@pytest.mark.parametrize("question", [QUESTION, {"prompt": "Is it warm?"}], ids=["chat", "prompt"])
def test_pattern(
    adapter: VllmHttpAdapter, question: dict[str, Any], wanted: dict[str, Any], pattern: str
) -> None:
    """The whole answer is what the regex, the choice, the grammar or the tag allows."""
    found = answer(adapter, **question, structured_outputs=StructuredOutputs(**wanted))

    assert found.finish_reason == "stop"
    assert re.fullmatch(pattern, found.text)


@pytest.mark.parametrize(
    "wanted",
    [
        {"structured_outputs": StructuredOutputs(json_object=True)},
        {"response_format": {"type": "json_object"}},
    ],
    ids=["structured_outputs", "response_format"],
)
def test_any_object(adapter: VllmHttpAdapter, wanted: dict[str, Any]) -> None:
    """The answer is some JSON object."""
    found = answer(adapter, **QUESTION, **wanted)

    assert found.finish_reason == "stop"
    assert isinstance(json.loads(found.text), dict)


@pytest.mark.parametrize(
    "wanted",
    [
        {"structured_outputs": {"json": WARM}},
        {"structured_outputs": {"json": json.dumps(WARM)}},
        {"response_format": {"type": "json_schema", "json_schema": NAMED}},
        {"response_format": {"type": "structural_tag", "format": TAG["format"]["elements"][1]}},
    ],
    ids=["dict", "text", "OpenAI's", "tag"],
)
def test_schema(adapter: VllmHttpAdapter, wanted: dict[str, Any]) -> None:
    """The answer has the schema's keys and types."""
    found = answer(adapter, **QUESTION, **wanted)

    assert found.finish_reason == "stop"
    assert json.loads(found.text) in ({"warm": True}, {"warm": False})


def test_what_is_cut_is_no_json(adapter: VllmHttpAdapter) -> None:
    """An answer of too few tokens says that its length ended it."""
    found = answer(adapter, **QUESTION, response_format=City, max_tokens=4)

    assert found.finish_reason == "length"
    with pytest.raises(ValueError, match=r"."):
        json.loads(found.text)


# Tool calls.


@pytest.mark.parametrize(
    ("tool_choice", "names", "reason"),
    [
        ("required", {"get_weather", "get_time"}, "tool_calls"),
        (THIS_TOOL, {"get_time"}, "stop"),
    ],
    ids=["some tool", "this tool"],
)
def test_tool_call(
    adapter: VllmHttpAdapter, tool_choice: Any, names: set[str], reason: str
) -> None:
    """It is whole, its arguments fit, and the message for the next turn has it."""
    found = answer(adapter, **ASKED, tool_choice=tool_choice)

    (call,) = found.tool_calls
    (sent_back,) = found.message()["tool_calls"]
    assert (found.text, found.finish_reason) == ("", reason)
    assert call.name in names
    assert call.complete
    assert call.parsed()["city"] in ("Paris", "Rome")
    assert sent_back["id"] == call.id != ""
    assert json.loads(sent_back["function"]["arguments"]) == call.parsed()


def test_tool_call_is_answered(adapter: VllmHttpAdapter) -> None:
    """The engine takes our message back, and the tool's answer after it."""
    asked = answer(adapter, **ASKED, tool_choice="required")

    (call,) = asked.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees"}
    turns = [*ASKED["messages"], asked.message(), result]
    found = answer(adapter, messages=turns, tools=TOOLS, tool_choice="none", max_tokens=20)

    assert found.error is None
    assert found.text != ""


@pytest.fixture(scope="module")
def cut(vllm: Server) -> list[Choice]:
    """The answers of 22 to 37 tokens: a call has begun, its arguments have not ended."""
    tasks = [
        TaskRequest(model=MODEL, temperature=0, max_tokens=length, tool_choice=choice, **ASKED)
        for choice in ("required", THIS_TOOL)
        for length in range(22, 38)
    ]
    with VllmHttpAdapter(vllm.url) as adapter:
        return [found.choices[0] for found in adapter.map(tasks, in_flight=8)]


def test_cut_tool_call_is_not_complete(cut: list[Choice]) -> None:
    """What came of it is told, but it cannot be parsed."""
    begun = [call for choice in cut for call in choice.tool_calls if call.arguments != "{}"]

    assert {choice.finish_reason for choice in cut} == {"length"}
    assert any(call.arguments for call in begun)
    assert [call for call in begun if call.complete] == []
    with pytest.raises(ValueError, match=r"."):
        begun[-1].parsed()


def test_made_up_arguments_are_not_complete(cut: list[Choice]) -> None:
    """Nor can what vLLM made up for the arguments that it did not see."""
    calls = [call for choice in cut for call in choice.tool_calls]

    assert [call for call in calls if call.complete] == []
