"""A tool call as a model with vLLM's hermes parser makes one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from . import _words
from ._choice import ToolCall
from ._words import Word


_END = Word("<|im_end|>", 2)
_DEEPEST = 8  # a schema may hold itself


def forced_tool(body: dict[str, Any]) -> tuple[dict[str, Any], bool] | None:
    """The function that a request makes the model call, and whether by its name; often None."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    functions = [_function(tool) for tool in tools] if isinstance(tools, list) else []
    if isinstance(choice, dict):
        name = _function(choice).get("name")
        return next(((f, True) for f in functions if f.get("name") == name), None)
    return (functions[0], False) if choice == "required" and functions else None


def make_tool_call(
    function: dict[str, Any], words: Iterator[Word], call_id: str, *, named: bool
) -> ToolCall:
    """A call of a function.

    Args:
        function: its name and its parameters' JSON schema.
        words: what strings in the arguments are made of.
        call_id: tells it from other calls.
        named: the request chose it by its name; vLLM then says ``stop`` at the end.
    """
    name = str(function.get("name"))
    arguments = json.dumps(_instance(function.get("parameters"), words, 0), ensure_ascii=False)
    head = {"id": call_id, "type": "function", "index": 0, "function": {"name": name}}
    spoken: list[tuple[str, dict[str, Any] | None]] = [
        *((text, None) for text in ("<tool_call>", "\n", '{"name":')),
        (f" {json.dumps(name)}", head),
        *((text, None) for text in (",", ' "arguments":', " ")),
        *(
            (text, {"index": 0, "function": {"arguments": text}})
            for text in re.findall(r"\s*\S+", arguments)
        ),
        ("}", None),
    ]
    size = len(spoken)
    spoken += [("\n", None), ("</tool_call>", None)]
    tokens = [(Word(text, _words.token_id(text)), piece) for text, piece in spoken]
    entry = {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    return ToolCall([*tokens, (_END, None)], entry, size, "stop" if named else "tool_calls")


def _function(tool: object) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else {}


def _instance(schema: object, words: Iterator[Word], depth: int) -> Any:
    """A value that a simple JSON schema allows."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return {}
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "string":
        return next(words).text.strip()
    if kind == "array":
        return [_instance(schema.get("items"), words, depth + 1)]
    properties = schema.get("properties")
    if isinstance(properties, dict):
        return {name: _instance(each, words, depth + 1) for name, each in properties.items()}
    return {"integer": 7, "number": 0.5, "boolean": True, "null": None}.get(str(kind), {})
