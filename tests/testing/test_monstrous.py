"""Requests that no engine can serve: each has its answer, and the next one too."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from vllm_http.testing import FakeEngine


PATHS = (
    *("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/v1/embeddings"),
    *("/v1/score", "/v1/rerank"),
)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


def status_of(engine: FakeEngine, path: str, body: bytes) -> int:
    """The status that a POST of this body gets."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(engine.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            refusal.read()
            return refusal.code


def deep(inner: str = "1", depth: int = 100_000) -> str:
    """JSON that is nested so deeply."""
    return "[" * depth + inner + "]" * depth


BODIES: dict[str, str] = {
    "deep": deep(),
    "deep inside": f'{{"prompt": {deep()}}}',
    "deep, as far as Python reads it": f'{{"prompt": {deep(depth=900)}}}',
    "deep dicts": '{"messages": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    "a deep regex": json.dumps(
        {"prompt": "a", "structured_outputs": {"regex": "(" * 5000 + "a" + ")" * 5000}}
    ),
    "a huge regex": json.dumps(
        {"prompt": "a", "structured_outputs": {"regex": "a{99999999999999999999}"}}
    ),
    "a regex with huge repeats": json.dumps(
        {"prompt": "a", "structured_outputs": {"regex": "(a{4294967295}){4294967295}"}}
    ),
    "a lone surrogate": '{"prompt": "a\\ud800", "input": "\\udfff", "messages": "\\ud800"}',
    "a lone surrogate for a key": '{"prompt": "a", "\\ud800": 1}',
    "a lone surrogate for a model": '{"prompt": "a", "model": "\\ud800", "input": "a"}',
    "a lone surrogate in a chat": '{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "a huge number": '{"prompt": "a", "max_tokens": ' + "9" * 5000 + "}",
    "a large number": '{"prompt": "a", "n": ' + "9" * 400 + "}",
    "an endless number": '{"prompt": "a", "temperature": 1e999}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BODIES)
def test_a_monstrous_request_is_refused(engine: FakeEngine, name: str, path: str) -> None:
    """With 400, also where the monster is in a field that the route does not read."""
    crashed: list[Any] = []
    before, threading.excepthook = threading.excepthook, crashed.append
    try:
        status = status_of(engine, path, BODIES[name].encode())
        after = status_of(engine, "/v1/completions", b'{"prompt": "a", "max_tokens": 1}')
    finally:
        threading.excepthook = before

    assert (status in (200, 400, 404), after) == (True, 200)
    assert crashed == []
    if "surrogate" in name or name in ("deep", "deep inside", "a huge number"):
        assert status in (400, 404)


@pytest.mark.parametrize("regex", ["(" * 5000 + "a" + ")" * 5000, "a{99999999999999999999}"])
def test_a_monstrous_regex_is_refused(engine: FakeEngine, regex: str) -> None:
    """As one that is no regex."""
    body = {"prompt": "a", "structured_outputs": {"regex": regex}}

    assert status_of(engine, "/v1/completions", json.dumps(body).encode()) == 400
