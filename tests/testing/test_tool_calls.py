"""A tool that has to be called is called: whole, in pieces, and with what its schema allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testing.raw_client import RawClient, Response


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "share": {"type": "number"},
        "indoors": {"type": "boolean"},
        "unit": {"enum": ["celsius", "kelvin"]},
        "hours": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"street": {"type": "string"}}},
    },
}
TOOLS = [
    {"type": "function", "function": {"name": "get_time"}},
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def call(client: RawClient, **fields: Any) -> Response:
    """The answer to a chat that has to call get_weather."""
    return client.chat(**{"tools": TOOLS, "tool_choice": NAMED, **fields})


def deltas(response: Response) -> list[dict[str, Any]]:
    """The deltas of a stream, without the opening one."""
    found = [choice["delta"] for event in response.events for choice in event["choices"]]
    return [delta for delta in found if "role" not in delta]


def test_arguments_follow_the_schema(client: RawClient) -> None:
    """Each property has a value of its type."""
    message = call(client).json["choices"][0]["message"]
    (tool_call,) = message["tool_calls"]
    arguments = json.loads(tool_call["function"]["arguments"])

    assert message["content"] == ""
    assert tool_call["function"]["name"] == "get_weather"
    assert isinstance(arguments.pop("city"), str)
    assert isinstance(arguments["place"].pop("street"), str)
    assert arguments == {
        "days": 7,
        "share": 0.5,
        "indoors": True,
        "unit": "celsius",
        "hours": [7],
        "place": {},
    }


@pytest.mark.parametrize(
    ("choice", "name", "reason"),
    [("required", "get_time", "tool_calls"), (NAMED, "get_weather", "stop")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_which_tool(client: RawClient, choice: Any, name: str, reason: str, stream: bool) -> None:
    """A required call is of the first tool; one by name ends with vLLM's ``stop``."""
    response = call(client, tool_choice=choice, stream=stream)
    last = response.events[-1] if stream else response.json

    assert f'"name":"{name}"' in response.body.decode()
    assert last["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_no_tool_has_to_be_called(client: RawClient, choice: str | None) -> None:
    """Otherwise the engine talks."""
    message = call(client, tool_choice=choice).json["choices"][0]["message"]

    assert message["content"]
    assert "tool_calls" not in message


def test_streamed_pieces_add_up(client: RawClient) -> None:
    """First come id and name, then the arguments in several pieces, then an empty delta."""
    head, *pieces, end = deltas(call(client, stream=True))
    spoken = "".join(piece["tool_calls"][0]["function"]["arguments"] for piece in pieces)
    whole = call(client).json["choices"][0]["message"]["tool_calls"][0]["function"]

    assert head["tool_calls"][0]["function"] == {"name": "get_weather"}
    assert head["tool_calls"][0]["id"].startswith("chatcmpl-tool-")
    assert {delta["content"] for delta in (head, *pieces)} == {None}
    assert len(pieces) > 5
    assert spoken == whole["arguments"]
    assert end == {}


@pytest.mark.parametrize("fields", [{"return_token_ids": True}, {"logprobs": True}])
def test_silent_tokens_are_told_of_when_asked(client: RawClient, fields: dict[str, Any]) -> None:
    """Each token has an event once ids or logprobs are wanted, and the counts are the same."""
    usage = {"stream_options": {"include_usage": True}, "stream": True}
    plain, told = call(client, **usage), call(client, **usage, **fields)
    tokens = plain.events[-1]["usage"]["completion_tokens"]

    assert len(deltas(plain)) < len(deltas(told)) == tokens
    assert told.events[-1]["usage"]["completion_tokens"] == tokens
    assert deltas(told)[0] == {}


def test_cut_call_is_text(client: RawClient) -> None:
    """A call that max_tokens cuts short is no call, and the reason is length."""
    choice = call(client, max_tokens=8).json["choices"][0]

    assert choice["message"]["content"].startswith('<tool_call>\n{"name": "get_weather"')
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "length"


def test_each_choice_calls(client: RawClient) -> None:
    """With n, each choice has a call with an id of its own."""
    choices = call(client, n=2).json["choices"]

    assert len({choice["message"]["tool_calls"][0]["id"] for choice in choices}) == 2


def test_call_is_a_stop_in_the_metrics(client: RawClient) -> None:
    """To the engine, a text that is a call has stopped like any other."""
    call(client, tool_choice="required")
    text = client.get("/metrics").body.decode()

    assert 'finished_reason="stop",model_name="fake-model"} 1.0' in text


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": None},
        {"tool_choice": "some"},
        {"tool_choice": {"type": "function", "function": {"name": "nobody"}}},
    ],
)
def test_senseless_choices_are_refused(client: RawClient, fields: dict[str, Any]) -> None:
    """Each is a 400, stream or not."""
    assert call(client, **fields).head.status == 400
    assert call(client, **fields, stream=True).head.status == 400


@pytest.mark.parametrize(
    "tools", [7, [7], [{"function": 7}], [{"function": {"name": 7, "parameters": {"type": []}}}]]
)
def test_nonsense_gets_an_answer(client: RawClient, tools: Any) -> None:
    """Whatever stands for tools, some answer goes out and the connection lives on."""
    assert call(client, tools=tools, tool_choice="required").head.status in (200, 400)
    assert client.get("/health").head.status == 200
