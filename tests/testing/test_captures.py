"""The engine's bytes against those of a real vLLM 0.32, recorded in tests/captures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from testing.likeness import fixed_headers, shape
from testing.raw_client import CAPTURES, RawClient, Response, read_chunk, read_head, read_response

from vllm_http.testing import Done, ErrorEvent, FakeEngine


SAME_SHAPE = [
    "A-completions-plain",
    "A-completions-n2",
    "A-completions-two-prompts",
    "A-completions-return-token-ids",
    "A-completions-stream",
    "A-completions-stream-usage",
    "A-completions-stream-usage-continuous",
    "A-completions-n2-stream",
    "A-completions-two-prompts-stream",
    "A-completions-return-token-ids-stream",
    "A-chat-plain",
    "A-chat-stream",
    "A-chat-stream-usage",
    "A-chat-stream-usage-continuous",
    "A-chat-n2-stream",
    "A-get-models",
    "A-tokenize",
    "E-no-model",
    "G-connection-close-stream",
    "I-stream-bad-regex",
]
SAME_BYTES = [
    "A-get-health",
    "A-get-ping",
    "A-get-load",
    "A-get-root",
    "A-get-version",
    "A-completions-max0",
    "E-unknown-model",
    "E-unknown-model-stream",
    "E-chat-unknown-model",
    "E-unknown-path",
    "E-get-completions",
    "E-delete-completions",
    "E-malformed-json",
    "E-empty-body",
    "E-json-array-body",
    "E-no-content-type",
    "E-wrong-type-max-tokens",
    "E-missing-prompt",
    "E-empty-prompt",
    "E-empty-prompt-list",
    "E-chat-no-messages",
    "E-chat-empty-messages",
    "E-max-tokens-beyond",
    "E-max-tokens-negative",
    "E-negative-temperature",
    "E-temperature-100",
    "E-n0",
    "E-n-huge",
    "E-n2-greedy",
    "E-prompt-exactly-context",
    "E-prompt-too-long",
    "E-prompt-too-long-ids",
    "E-chat-too-long",
    "E-stream-options-no-stream",
    "E-trailing-slash",
    "H-nan",
]
SAME_BYTES_WITH_A_KEY = ["C-auth-missing", "C-auth-wrong", "C-auth-missing-unknown-v1"]
SAME_IDS = ["A-completions-x-request-id", "A-completions-request-id-body", "A-chat-x-request-id"]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine that serves the model of the recordings."""
    with FakeEngine("smollm2") as engine:
        yield engine


def recorded(name: str) -> Response:
    """The response in a recording."""
    return read_response(io.BytesIO((CAPTURES / f"{name}.response.http").read_bytes()))


def replayed(client: RawClient, name: str) -> Response:
    """What the engine answers to the request in a recording."""
    client.send((CAPTURES / f"{name}.request.http").read_bytes())
    return read_response(client.stream)


def shapes(response: Response) -> list[Any]:
    """The shape of the body, or of each kind of event in the order of their first appearance."""
    bodies = response.events if response.chunks else [response.json]
    return list(dict.fromkeys(map(shape, bodies)))


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_answer_has_the_recorded_form(client: RawClient, name: str) -> None:
    """An answer has vLLM's headers and vLLM's JSON keys, in vLLM's order."""
    actual, expected = replayed(client, name), recorded(name)

    assert actual.head.status == expected.head.status
    assert fixed_headers(actual) == fixed_headers(expected)
    assert shapes(actual) == shapes(expected)


@pytest.mark.parametrize(
    "name", [n for n in SAME_SHAPE if n.startswith("A-completions") and n.endswith("stream")]
)
def test_stream_has_the_recorded_events(client: RawClient, name: str) -> None:
    """A stream cut by max_tokens has vLLM's number of events, choices, reasons and usage."""

    def outline(response: Response) -> list[Any]:
        return [
            ([(c["index"], c["finish_reason"]) for c in event["choices"]], event.get("usage"))
            for event in response.events
        ]

    actual, expected = outline(replayed(client, name)), outline(recorded(name))

    assert sorted(map(repr, actual)) == sorted(map(repr, expected))


@pytest.mark.parametrize("name", SAME_BYTES)
def test_answer_has_the_recorded_bytes(client: RawClient, name: str) -> None:
    """Refusals and the small routes answer byte for byte as vLLM does, the date apart."""
    actual, expected = replayed(client, name), recorded(name)

    assert actual.body == expected.body
    assert actual.head.status == expected.head.status
    assert actual.head.headers[1:] == expected.head.headers[1:]


@pytest.mark.parametrize("name", SAME_BYTES_WITH_A_KEY)
def test_missing_key_has_the_recorded_bytes(name: str) -> None:
    """Without the right key, the /v1 paths answer 401 in vLLM's own words."""
    with FakeEngine("smollm2", api_key="secret") as engine, RawClient(engine) as client:
        actual, expected = replayed(client, name), recorded(name)

    assert actual.body == expected.body
    assert actual.head.headers[1:] == expected.head.headers[1:]


@pytest.mark.parametrize("name", SAME_IDS)
def test_id_is_the_recorded_one(client: RawClient, name: str) -> None:
    """The id follows the X-Request-Id header, or request_id in the body."""
    assert replayed(client, name).json["id"] == recorded(name).json["id"]


def test_error_event_has_the_recorded_bytes(engine: FakeEngine, client: RawClient) -> None:
    """The error event of a dying engine is the one place with spaced JSON."""
    engine.script(
        ErrorEvent("EngineCore encountered an issue. See stack trace (above) for the root cause."),
        Done(),
    )

    assert client.complete(stream=True).chunks == recorded("B-kill9-enginecore-stream").chunks[-2:]


def test_refusal_in_the_stream_has_the_recorded_bytes(
    engine: FakeEngine, client: RawClient
) -> None:
    """A refusal inside a 200 has its code in the event."""
    (error,) = recorded("I-stream-bad-regex").events
    engine.script(ErrorEvent(error["error"]["message"], 400, "BadRequestError"), Done())

    assert client.complete(stream=True).chunks == recorded("I-stream-bad-regex").chunks


def test_each_event_is_one_chunk(client: RawClient) -> None:
    """vLLM sends one HTTP chunk for each event, and [DONE] in a chunk of its own."""
    client.request("POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 2, "stream": True})
    read_head(client.stream)

    chunks = [read_chunk(client.stream) for _ in range(4)]

    assert [chunk.count(b"data: ") for chunk in chunks] == [1, 1, 1, 0]
    assert chunks[2:] == [b"data: [DONE]\n\n", b""]
