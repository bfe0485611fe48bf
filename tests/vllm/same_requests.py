"""The requests that a FakeEngine and a real vLLM are both sent, byte for byte the same."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .server import CONTEXT, MODEL


Fields = dict[str, Any]

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

PROMPT = {"prompt": "The capital of France is"}
MESSAGES = {"messages": [{"role": "user", "content": "Where is Paris? Answer at length."}]}
TWO = {"prompt": ["Hello there", "The sea is"]}
# Every answer is of the same length, and neither a stop token nor luck ends it early.
STEADY = {"model": MODEL, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
N2 = {"n": 2, "temperature": 1.0, "seed": 7}  # n > 1 is refused at temperature 0
STOP = {"stop": ["e"], "max_tokens": 60}  # soon there, whoever speaks
LONG_STOP = {"stop": ["e", "nowhere to be found"], "max_tokens": 60}
IDS = {"return_token_ids": True}
LIKELY = {"logprobs": True, "top_logprobs": 2}
CONTINUOUS = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": CITY}}
    for name in ("get_weather", "get_time")
]
ASKED = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
CALL = {**ASKED, "tools": TOOLS, "max_tokens": 60, "ignore_eos": None}
REQUIRED = {**CALL, "tool_choice": "required"}
NAMED = {**CALL, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
NOBODY = {"type": "function", "function": {"name": "nobody"}}

# Each is sent as it is, and with stream=true.
ANSWERED: dict[str, dict[str, Fields]] = {
    COMPLETIONS: {
        "plain": {},
        "one token": {"max_tokens": 1},
        "default length": {"max_tokens": None},
        "seed": {"seed": 7, "temperature": 1.0},
        "n": N2,
        "two prompts": TWO,
        "two prompts, n": {**TWO, **N2},
        "token prompt": {"prompt": [504, 3575, 282]},
        "two token prompts": {"prompt": [[504, 3575, 282], [504, 3426]]},
        "stop": STOP,
        "stop, with logprobs and ids": {**STOP, **IDS, "logprobs": 1},
        "stop that stays": {**STOP, "include_stop_str_in_output": True},
        "stop that holds text back": LONG_STOP,
        "logprobs 0": {"logprobs": 0},
        "logprobs 2": {"logprobs": 2},
        "logprobs with ids for tokens": {"logprobs": 2, "return_tokens_as_token_ids": True},
        "logprobs, n": {"logprobs": 2, **N2},
        "echo": {"echo": True},
        "echo, logprobs": {"echo": True, "logprobs": 1},
        "echo, token ids": {"echo": True, **IDS},
        "echo, token ids, logprobs": {"echo": True, **IDS, "logprobs": 1},
        "echo, two prompts": {"echo": True, **TWO},
        "echo of a token prompt": {"echo": True, "prompt": [504, 3575, 282], "logprobs": 1},
        "echo, prompt logprobs 0": {"echo": True, "prompt_logprobs": 0},
        "token ids": IDS,
        "token ids, logprobs": {**IDS, "logprobs": 1},
        "token ids, two prompts": {**IDS, **TWO},
        "prompt logprobs 0": {"prompt_logprobs": 0},
        "prompt logprobs 1": {"prompt_logprobs": 1},  # a stream is refused
        "unknown field": {"no_such_field": 1},
        "id": {"request_id": "mine"},
        "max_tokens in a string": {"max_tokens": "3"},
        "stop token that never comes": {"stop_token_ids": [7]},
    },
    CHAT: {
        "plain": {},
        "one token": {"max_tokens": 1},
        "max_completion_tokens": {"max_completion_tokens": 3},
        "seed": {"seed": 7, "temperature": 1.0},
        "n": N2,
        "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        "stop": STOP,
        "stop that holds text back": LONG_STOP,
        "logprobs": {"logprobs": True},
        "top_logprobs 2": LIKELY,
        "logprobs with ids for tokens": {**LIKELY, "return_tokens_as_token_ids": True},
        "logprobs, n": {**LIKELY, **N2},
        "token ids": IDS,
        "token ids, logprobs, n": {**IDS, **LIKELY, **N2},
        "prompt logprobs 1": {"prompt_logprobs": 1},
        "echo": {"echo": True},
        "echo, top_logprobs 2": {"echo": True, **LIKELY},
        "no tool": {"tools": TOOLS, "tool_choice": "none"},
        "some tool": REQUIRED,
        "this tool": NAMED,
        "some tool, token ids": {**REQUIRED, **IDS},
        "this tool, logprobs": {**NAMED, **LIKELY},
        "some tool, cut at once": {**REQUIRED, "max_tokens": 1},
    },
}

# Refused by status even with stream=true, in the same words.
REFUSED: dict[str, Fields] = {
    "unknown model": {"model": "nobody"},
    "temperature 3": {"temperature": 3},
    "temperature -1": {"temperature": -1},
    "temperature in words": {"temperature": "warm"},
    "max_tokens 0": {"max_tokens": 0},
    "max_tokens beyond the context": {"max_tokens": CONTEXT + 1},
    "max_tokens in words": {"max_tokens": "many"},
    "n 0": {"n": 0},
    "n without luck": {"n": 2},
    "top_p 2": {"top_p": 2},
    "top_k -5": {"top_k": -5},
    "presence_penalty 3": {"presence_penalty": 3},
    "frequency_penalty -3": {"frequency_penalty": -3},
    "min_tokens over max_tokens": {"min_tokens": 10},
    "empty stop": {"stop": [""]},
    "five stops": {"stop": ["a", "b", "c", "d", "e"]},
    "stop tokens in words": {"stop_token_ids": "a"},
    "prompt_logprobs -5": {"prompt_logprobs": -5},
    "prompt_logprobs 30": {"prompt_logprobs": 30},
}
REFUSED_HERE: dict[str, dict[str, Fields]] = {
    COMPLETIONS: {
        "too long a text": {"prompt": "word " * (CONTEXT + 50)},
        "too many tokens": {"prompt": [5] * (CONTEXT + 50)},
        "no room": {"prompt": [5] * CONTEXT},
        "no prompt": {"prompt": None},
        "empty prompt": {"prompt": ""},
        "no prompts": {"prompt": []},
        "logprobs -5": {"logprobs": -5},
        "logprobs in words": {"logprobs": "some"},
    },
    CHAT: {
        "too long a text": {
            "messages": [{"role": "user", "content": "word " * (CONTEXT + 50)}],
        },
        "no messages": {"messages": None},
        "empty messages": {"messages": []},
        "top_logprobs -5": {"logprobs": True, "top_logprobs": -5},
        "top_logprobs alone": {"top_logprobs": 2},
        "unknown tool": {**NAMED, "tool_choice": NOBODY},
        "unknown tool choice": {**NAMED, "tool_choice": "some"},
        "tool choice without tools": {"tool_choice": "required"},
        "empty tools": {"tools": []},
    },
}

# Refused by status without a stream, and inside a 200 with one.
REFUSED_LATE: dict[str, dict[str, Fields]] = {
    COMPLETIONS: {"logprobs 100": {"logprobs": 100}, "all logprobs": {"logprobs": -1}},
    CHAT: {"top_logprobs 100": {"logprobs": True, "top_logprobs": 100}},
}
BAD_GRAMMAR = {"structured_outputs": {"regex": "("}}

JSON = "Content-Type: application/json"
SMALL = json.dumps({**STEADY, **PROMPT}).encode()


class Case(NamedTuple):
    """One request."""

    name: str
    request: bytes
    has_body: bool = True  # the answer: that to a HEAD has none
    same_words: bool = False  # no number, time or generated text is in the answer


def raw(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """The bytes of a request; the length of a body comes by itself."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def generating(path: str, fields: Fields) -> bytes:
    """A POST of JSON to a route that generates; a field that is None is left out."""
    prompt = PROMPT if path == COMPLETIONS else MESSAGES
    body = {**STEADY, **prompt, **fields}
    body = {name: value for name, value in body.items() if value is not None}
    return raw("POST", path, JSON, body=json.dumps(body).encode())


def cases() -> list[Case]:
    """All of them."""
    found = [*PLAIN_ROUTES, *BAD_HTTP]
    for path in (COMPLETIONS, CHAT):
        found += _both_ways(path, ANSWERED[path])
        found += _both_ways(path, {**REFUSED, **REFUSED_HERE[path]}, same_words=True)
        found += _both_ways(path, REFUSED_LATE[path], same_words=True)
        found += _both_ways(path, {"bad grammar": BAD_GRAMMAR})
        for name, fields in ANSWERED[path].items():
            if fields.get("n") or name in ("plain", "two prompts", "some tool", "stop"):
                usage = {**fields, **CONTINUOUS, "stream": True}
                found.append(_case(path, f"{name}, continuous usage", usage))
        last_only = {"stream": True, "stream_options": {"include_usage": True}}
        found.append(_case(path, "usage", last_only))
        found.append(_case(path, "no stream, no options", {"stream_options": {}}))
        options = {"stream_options": {"include_usage": True}}
        found.append(_case(path, "options without a stream", options, same_words=True))
    return found


def _both_ways(path: str, table: dict[str, Fields], *, same_words: bool = False) -> list[Case]:
    found = []
    for name, fields in table.items():
        found.append(_case(path, name, fields, same_words=same_words))
        streamed = {**fields, "stream": True}
        found.append(_case(path, f"{name}, streamed", streamed, same_words=same_words))
    return found


def _case(path: str, name: str, fields: Fields, *, same_words: bool = False) -> Case:
    kind = path.split("/")[2]
    return Case(f"{kind}: {name}", generating(path, fields), same_words=same_words)


PLAIN_ROUTES = [
    *(
        Case(f"GET {path}", raw("GET", path), same_words=True)
        for path in ("/health", "/ping", "/version", "/load", "/nowhere", "/v1/nowhere", "/")
    ),
    Case("GET /v1/models", raw("GET", "/v1/models")),
    Case("GET /metrics", raw("GET", "/metrics")),
    Case("GET with a query", raw("GET", "/version?verbose=1"), same_words=True),
    Case("POST /ping", raw("POST", "/ping"), same_words=True),
    *(
        Case(f"{method} {path}", raw(method, path), has_body=method != "HEAD", same_words=True)
        for path in ("/health", COMPLETIONS, "/nowhere")
        for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
    ),
    Case("GET /v1/completions", raw("GET", COMPLETIONS), same_words=True),
    *(
        Case(f"POST {path}", raw("POST", path), same_words=True)
        for path in ("/health", "/version", "/load", "/v1/models")
    ),
    Case("trailing slash", raw("POST", f"{COMPLETIONS}/", JSON, body=SMALL), same_words=True),
    Case("POST /tokenize", raw("POST", "/tokenize", JSON, body=b'{"prompt": "Hi there"}')),
    Case(
        "POST /tokenize for an unknown model",
        raw("POST", "/tokenize", JSON, body=b'{"model": "nobody", "prompt": "Hi"}'),
        same_words=True,
    ),
    Case(
        "POST /tokenize with strings",
        raw("POST", "/tokenize", JSON, body=b'{"prompt": "Hi", "return_token_strs": true}'),
    ),
]
BAD_HTTP = [
    *(
        Case(name, raw("POST", COMPLETIONS, *headers, body=body), same_words=True)
        for name, headers, body in [
            ("malformed JSON", [JSON], b'{"prompt": "Hi'),
            ("JSON that is no object", [JSON], b"[1, 2]"),
            ("no body", [JSON], b""),
            ("wrong content type", ["Content-Type: text/plain"], SMALL),
            ("no content type", [], SMALL),
        ]
    ),
    Case("connection: close", raw("POST", COMPLETIONS, JSON, "Connection: close", body=SMALL)),
    Case(
        "content type with charset", raw("POST", COMPLETIONS, f"{JSON}; charset=utf-8", body=SMALL)
    ),
    Case("HTTP/1.0", raw("GET", "/version").replace(b"HTTP/1.1", b"HTTP/1.0"), same_words=True),
    Case(
        "body in chunks",
        raw("POST", COMPLETIONS, JSON, "Transfer-Encoding: chunked")
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMALL), SMALL),
    ),
]
