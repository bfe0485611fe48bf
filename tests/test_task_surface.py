"""All of vLLM's parameters: each has a limit that is checked before the wire, and a place on it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import pytest

from vllm_http import InvalidRequest, StructuredOutputs, TaskRequest
from vllm_http._request import encode


CHAT = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "weather"}}

# Field: values that go to the engine, values that do not.
OF_BOTH: dict[str, tuple[list[Any], list[Any]]] = {
    "max_tokens": ([1, 10**9], [0, -1, 1.0, True, "1"]),
    "temperature": ([0, 2, 0.5], [-0.1, 2.1, float("nan"), float("inf"), True, "1"]),
    "top_p": ([0.001, 1], [0, 1.001, -1]),
    "seed": ([0, -(2**63), 2**63 - 1], [2**63, 1.0]),
    "n": ([1, 3], [0, -1, 1.5, True]),
    "min_tokens": ([0, 5], [-1, 1.5]),
    "top_k": ([-1, 0, 50], [-2, 1.5]),
    "min_p": ([0, 1], [-0.1, 1.1]),
    "frequency_penalty": ([-2, 2], [-2.1, 2.1]),
    "presence_penalty": ([-2, 2], [-2.1, 2.1]),
    "repetition_penalty": ([0.1, 2], [0, -1, float("inf")]),
    "logit_bias": ([{"7": -100}, {7: 1.5}, {}], [[7], {"a": 1}, {"-1": 1}, {7: "1"}, {1.5: 1}]),
    "stop": (["x", ["x", "yz"], []], ["", [""], ["x", 5], 5]),
    "stop_token_ids": ([[0, 5], []], [[-1], ["a"], [True], 5]),
    "ignore_eos": ([True, False], [0, 1, "true"]),
    "bad_words": ([["x"], []], [[""], "x"]),
    "allowed_token_ids": ([[1, 2]], [[], [-1], 5]),
    "length_penalty": ([-1, 1.0], ["1", float("nan")]),
    "repetition_detection": ([{"max_pattern_size": 3, "min_count": 2}], [[3], True]),
    "thinking_token_budget": ([-1, 100], [-2, 1.5]),
    "watermarking": ([True], [1]),
    "response_format": ([{"type": "json_object"}], [{}, {"kind": "text"}, "json"]),
    "return_token_ids": ([True, False], [1]),
    "return_tokens_as_token_ids": ([True], [1]),
    "echo": ([True], [1]),
    "skip_special_tokens": ([False], [0]),
    "spaces_between_special_tokens": ([False], [0]),
    "include_stop_str_in_output": ([True], [1]),
    "stream_interval": ([1, 10], [0, 1.5]),
    "add_special_tokens": ([False], [0]),
    "truncate_prompt_tokens": ([-1, 0, 100], [-2]),
    "truncation_side": (["left", "right"], ["middle", 5]),
    "priority": ([0, -5], [1.5, True]),
    "cache_salt": (["a" * 128], ["", "a" * 129, "a@b", "a/b", "a\\b", "a\0b", 5]),
    "kv_transfer_params": ([{"a": 1}], [[1], {1: 1}]),
    "ec_transfer_params": ([{"a": 1}], [[1]]),
    "vllm_xargs": ([{"a": [1, "b"]}], ["a"]),
    "routed_experts_prompt_start": ([0], [-1]),
    "user": (["me"], ["", 5]),
}
OF_CHAT: dict[str, tuple[list[Any], list[Any]]] = {
    "max_completion_tokens": ([1], [0, True]),
    "logprobs": ([True, False], [1, "true"]),
    "return_prompt_text": ([True], [1]),
    "include_reasoning": ([False], [0]),
    "tools": ([[TOOL]], [[], TOOL, [{"type": "function"}], ["weather"]]),
    "parallel_tool_calls": ([False], [0]),
    "reasoning_effort": (["low"], [5, ""]),
    "add_generation_prompt": ([False], [0]),
    "continue_final_message": ([False], [1, True]),
    "documents": ([[{"title": "a"}], []], [["a"], {}]),
    "chat_template": (["{{ messages }}"], ["", 5]),
    "chat_template_kwargs": ([{"enable_thinking": False}], [[1]]),
    "media_io_kwargs": ([{"image": {}}], [5]),
    "mm_processor_kwargs": ([{"a": 1}], [5]),
}
OF_PROMPTS: dict[str, tuple[list[Any], list[Any]]] = {
    "logprobs": ([0, 5, -1], [-2, True, 1.5]),
    "suffix": (["end"], ["", 5]),
}


def table(which: int) -> list[Any]:
    """Each field with each of its values: 0 those that are good, 1 those that are not."""
    both = [(name, "prompt", values) for name, values in OF_BOTH.items()]
    both += [(name, "messages", values) for name, values in OF_BOTH.items()]
    chat = [(name, "messages", values) for name, values in OF_CHAT.items()]
    prompts = [(name, "prompt", values) for name, values in OF_PROMPTS.items()]
    return [
        pytest.param(kind, name, value, id=f"{kind}-{name}-{value!r:.20}")
        for name, kind, values in [*both, *chat, *prompts]
        for value in values[which]
    ]


def a_request(kind: str, **more: Any) -> TaskRequest:
    """A valid task of that kind, and more."""
    if kind == "messages":
        return TaskRequest(messages=CHAT, model="fake-model", **more)
    return TaskRequest(prompt="Hello", model="fake-model", **more)


def body(task: TaskRequest) -> Any:
    """What the engine gets for a valid task."""
    task.validate()
    return json.loads(encode(task, "job").body)


@pytest.mark.parametrize(("kind", "name", "value"), table(0))
def test_good_value_goes_out_under_its_own_name(kind: str, name: str, value: Any) -> None:
    """As JSON has it, with nothing else beside it."""
    plain = body(a_request(kind))
    sent = body(a_request(kind, **{name: value}))

    assert json.dumps(sent.pop(name), sort_keys=True) == json.dumps(value, sort_keys=True)
    assert sent == plain


@pytest.mark.parametrize(("kind", "name", "value"), table(1))
def test_bad_value_is_refused_by_name(kind: str, name: str, value: Any) -> None:
    """Before the wire: the engine would say so later, or never."""
    with pytest.raises(InvalidRequest, match=rf"^{name}\b"):
        a_request(kind, **{name: value}).validate()


def test_table_is_whole() -> None:
    """A field that is added to a task is added above."""
    elsewhere = {
        *("prompt", "messages", "model", "extra_body", "prompt_embeds"),
        *("session_id", "deadline_ms", "correlation_id", "job_id"),
        *("structured_outputs", "top_logprobs", "logprob_token_ids", "tool_choice"),
        *("use_beam_search", "prompt_logprobs", "include_usage"),
    }

    assert {f.name for f in fields(TaskRequest)} - elsewhere == {*OF_BOTH, *OF_CHAT, *OF_PROMPTS}


def test_every_field_is_in_the_docs() -> None:
    """docs/requests.md has all that is sent; a real vLLM's own list is checked by tox -e vllm."""
    document = Path(__file__).parent.parent / "docs" / "requests.md"
    ours = {"session_id", "deadline_ms", "correlation_id", "job_id", "extra_body"}
    named = set(re.findall(r"`TaskRequest\.(\w+)` \|$", document.read_text(), re.MULTILINE))

    assert named == {f.name for f in fields(TaskRequest)} - ours


@pytest.mark.parametrize("name", sorted({*OF_CHAT} - {*OF_PROMPTS} | {"top_logprobs"}))
def test_field_of_chat_is_refused_with_a_prompt(name: str) -> None:
    """vLLM would ignore it."""
    good = OF_CHAT.get(name, ([1], []))[0][0]
    with pytest.raises(InvalidRequest, match=f"^{name}: vLLM takes it with messages only"):
        a_request("prompt", **{name: good}).validate()


@pytest.mark.parametrize("name", ["suffix"])
def test_field_of_prompts_is_refused_with_messages(name: str) -> None:
    """vLLM would ignore it."""
    with pytest.raises(InvalidRequest, match=f"^{name}: vLLM takes it with prompt only"):
        a_request("messages", **{name: "end"}).validate()


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("prompt", {"max_tokens": 0}, "max_tokens: 0"),
        ("prompt", {"min_tokens": 5, "max_tokens": 4}, "min_tokens: 5 is more than max_tokens, 4"),
        ("prompt", {"n": 2, "temperature": 0}, "n: 2"),
        ("messages", {"top_logprobs": 2}, "top_logprobs: 2 needs logprobs=True"),
        ("messages", {"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ("messages", {"top_logprobs": -2, "logprobs": True}, "top_logprobs: -2"),
        ("prompt", {"logprob_token_ids": [5]}, "logprob_token_ids"),
        ("messages", {"tool_choice": "auto"}, "tool_choice: 'auto' needs tools"),
        ("messages", {"tool_choice": "any", "tools": [TOOL]}, "tool_choice: 'any'"),
        ("messages", {"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice"),
        ("messages", {"tool_choice": OTHER, "tools": [TOOL]}, "tool_choice"),
        (
            "messages",
            {"add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message: it needs",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_fields_that_contradict_each_other(kind: str, fields: dict[str, Any], said: str) -> None:
    """What vLLM refuses in any case, whatever its flags."""
    with pytest.raises(InvalidRequest) as caught:
        a_request(kind, **fields).validate()

    assert caught.value.message.startswith(said)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("prompt", {"max_tokens": 0, "echo": True}),
        ("prompt", {"min_tokens": 4, "max_tokens": 4}),
        ("prompt", {"n": 1, "temperature": 0}),
        ("prompt", {"n": 2, "temperature": 0, "use_beam_search": True}),
        ("prompt", {"logprob_token_ids": [5], "logprobs": 1}),
        ("messages", {"top_logprobs": 0}),
        ("messages", {"top_logprobs": 2, "logprobs": True}),
        ("messages", {"tool_choice": "none"}),
        ("messages", {"tool_choice": "required", "tools": [TOOL]}),
        ("messages", {"tool_choice": NAMED, "tools": [TOOL]}),
        ("messages", {"add_generation_prompt": False, "continue_final_message": True}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_fields_that_go_together(kind: str, fields: dict[str, Any]) -> None:
    """What looks like the former and is good."""
    assert body(a_request(kind, **fields)).items() >= fields.items()


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [[1], [2], [3]], "n": 2}, 6),
        ({"prompt": ["a", "b"], "extra_body": {"n": 2}}, 4),
        ({"messages": CHAT, "n": 2}, 2),
        ({"prompt_embeds": "AAAA"}, 1),
        ({"prompt_embeds": ["AAAA", "BBBB"]}, 2),
    ],
    ids=str,
)
def test_as_many_choices_as_prompts_times_n(fields: dict[str, Any], choices: int) -> None:
    """So many finish reasons make the answer whole."""
    task = TaskRequest(**fields)
    task.validate()

    assert encode(task, "job").choices == choices


@pytest.mark.parametrize("fields", [{"use_beam_search": True}, {"prompt_logprobs": 0}], ids=str)
def test_what_vllm_does_not_stream(fields: dict[str, Any]) -> None:
    """It is asked for in one piece: vLLM answers 400 to ``stream`` and to ``stream_options``."""
    sent = body(a_request("prompt", **fields))

    assert sent["stream"] is False
    assert "stream_options" not in sent
    assert sent.items() >= fields.items()


# Structured outputs.


@dataclass
class City:
    """What an answer could be."""

    name: str
    people: int


class Town(TypedDict):
    """The same, as a dict."""

    name: str
    people: int


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
}


def schema_in(found: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where msgspec has put it; without its title."""
    inner = found["$defs"][found["$ref"].rpartition("/")[2]]
    return {key: value for key, value in inner.items() if key in SCHEMA}


@pytest.mark.parametrize("kind", [City, Town])
def test_type_stands_for_its_schema(kind: type) -> None:
    """In structured_outputs and in response_format, at once: a task travels as JSON."""
    task = a_request("prompt", structured_outputs=StructuredOutputs(json=kind))
    chat = a_request("messages", response_format=kind)

    assert schema_in(body(task)["structured_outputs"]["json"]) == SCHEMA
    as_dict = a_request("prompt", structured_outputs={"json": kind})
    assert schema_in(body(as_dict)["structured_outputs"]["json"]) == SCHEMA
    assert schema_in(body(TaskRequest.from_json(as_dict.to_json()))["structured_outputs"]["json"])
    asked = body(chat)["response_format"]
    assert (asked["type"], asked["json_schema"]["name"]) == ("json_schema", kind.__name__)
    assert schema_in(asked["json_schema"]["schema"]) == SCHEMA
    for one in (task, chat):
        assert TaskRequest.from_json(one.to_json()) == one


def test_model_that_makes_its_own_schema() -> None:
    """As pydantic's do."""

    class Model:
        @staticmethod
        def model_json_schema() -> dict[str, Any]:
            return SCHEMA

    assert StructuredOutputs(json=Model).json == SCHEMA


def test_type_without_a_schema() -> None:
    """It is refused where it is given."""
    with pytest.raises(InvalidRequest, match=r"^object has no JSON schema"):
        StructuredOutputs(json=object)


@pytest.mark.parametrize(
    "value",
    [
        {"json": SCHEMA},
        {"json": json.dumps(SCHEMA)},
        {"regex": "[0-9]+"},
        {"choice": ["yes", "no"]},
        {"grammar": 'root ::= "a"'},
        {"json_object": True},
        {"structural_tag": "{}"},
        {"regex": "a", "disable_any_whitespace": True},
    ],
    ids=lambda value: next(iter(value)),
)
def test_structured_outputs_as_an_object_or_as_a_dict(value: dict[str, Any]) -> None:
    """What is not set is not sent."""
    typed = a_request("prompt", structured_outputs=StructuredOutputs(**value))

    assert body(typed)["structured_outputs"] == value
    assert body(a_request("prompt", structured_outputs=value))["structured_outputs"] == value
    assert TaskRequest.from_json(typed.to_json()) == typed


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "exactly one of json, regex"),
        ({"regex": "a", "choice": ["a"]}, "not regex, choice"),
        ({"regexp": "a"}, "no field 'regexp'"),
        ({"json": 5}, "json: 5 is not a JSON schema"),
        ({"json": {}}, "json: {} is not a JSON schema"),
        ({"regex": ""}, "regex: '' is not text"),
        ({"choice": []}, "choice"),
        ({"choice": ["a", 5]}, r"choice\[1\]: 5"),
        ({"json_object": False}, "json_object: False is not True"),
        ("regex", "a dict is wanted, not str"),
    ],
    ids=str,
)
def test_structured_outputs_that_vllm_would_refuse(value: Any, said: str) -> None:
    """Exactly one constraint, of its own type."""
    with pytest.raises(InvalidRequest, match=f"^structured_outputs.*{said}"):
        a_request("prompt", structured_outputs=value).validate()


@pytest.mark.parametrize("name", ["guided_json", "guided_regex", "guided_decoding_backend"])
def test_name_that_vllm_has_given_up(name: str) -> None:
    """It would be ignored, and the answer unconstrained; the new name is told."""
    with pytest.raises(InvalidRequest, match=f"^extra_body.{name}: vLLM has removed it; use .*str"):
        a_request("prompt", extra_body={name: "a"}).validate()
    with pytest.raises(InvalidRequest, match=f"^{name}: vLLM has removed it; use .*structured"):
        TaskRequest.from_dict({"prompt": "Hello", name: "a"})
