"""The judge of two answers' likeness finds what is unlike, and says where."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from testing.likeness import differences
from testing.raw_client import CAPTURES, Response, read_response


def recorded(name: str) -> Response:
    """The response in a recording."""
    return read_response(io.BytesIO((CAPTURES / f"{name}.response.http").read_bytes()))


def event(number: int, change: Callable[[Any], Any]) -> Callable[[list[bytes]], list[bytes]]:
    """What changes the JSON of one event of a stream."""

    def changed(chunks: list[bytes]) -> list[bytes]:
        body = change(json.loads(chunks[number][6:]))
        chunks[number] = b"data: %b\n\n" % json.dumps(body).encode()
        return chunks

    return changed


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    """A body without a key."""
    return {key: value for key, value in body.items() if key != name}


def test_order_of_shapes_matters() -> None:
    """Two kinds of text events that change places are seen."""
    stream = recorded("A-chat-stream-usage")
    early, late = (
        stream._replace(chunks=event(number, lambda body: {**body, "note": 1})(list(stream.chunks)))
        for number in (1, 2)
    )
    early, late = (
        each._replace(chunks=[*each.chunks[:3], each.chunks[-1]]) for each in (early, late)
    )

    assert differences(early, late) == [
        "choice 0: the shapes of ['role', 'text', 'text'] come in another order"
    ]


@pytest.mark.parametrize(
    "name", ["A-chat-n2-stream", "A-completions-plain", "A-get-health", "A-get-metrics"]
)
def test_answer_is_like_itself(name: str) -> None:
    """Equal answers have no difference."""
    assert differences(recorded(name), recorded(name)) == []


def test_length_does_not_matter() -> None:
    """A stream with fewer tokens is of the same form."""
    actual = recorded("A-chat-stream-usage")
    del actual.chunks[2:4]

    assert differences(actual, recorded("A-chat-stream-usage")) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (event(0, lambda body: without(body, "model")), "choice 0, role: lacks '.model: str'"),
        (event(2, lambda body: {**body, "id": 7}), "choice 0, text: has '.id: int'"),
        (event(-2, lambda body: {**body, "usage": {}}), "end, usage: has '.usage: {}'"),
        (
            event(0, lambda body: dict(reversed(body.items()))),
            "choice 0, role: the order is",
        ),
        (lambda chunks: chunks[1:], "choice 0: the events are ['text', 'finish (stop)']"),
        (lambda chunks: chunks[:-1], "end: the events are ['usage'], not ['usage', '[DONE]']"),
        (lambda chunks: [*chunks, b": more\n\n"], "last chunk"),
        (lambda chunks: [chunks[-2], *chunks[:-2], chunks[-1]], "stream: has 'choice 0, late'"),
        (lambda chunks: [*chunks[:-2], chunks[-1]], "end: the events are ['[DONE]']"),
    ],
)
def test_stream_that_is_unlike(change: Callable[[list[bytes]], list[bytes]], found: str) -> None:
    """A key, a type, an order or an event that is not the same is named."""
    expected = recorded("A-chat-stream-usage")
    actual = expected._replace(chunks=change(list(expected.chunks)))

    assert any(line.startswith(found) for line in differences(actual, expected))


def test_whole_that_is_unlike() -> None:
    """A path inside lists is named down to its end."""
    expected = recorded("A-completions-plain")
    actual = expected._replace(
        body=expected.body.replace(b'"stop_reason":null', b'"stop_reason":1')
    )

    assert differences(actual, expected) == [
        "body: has '.choices[].stop_reason: int'",
        "body: lacks '.choices[].stop_reason: NoneType'",
    ]


def test_other_end_of_a_whole() -> None:
    """The finish_reason is compared by its value."""
    expected = recorded("A-completions-plain")
    actual = expected._replace(body=expected.body.replace(b'"length"', b'"stop"'))

    assert differences(actual, expected) == [
        "body: has 'choice 0: stop'",
        "body: lacks 'choice 0: length'",
    ]


def test_other_status_or_header() -> None:
    """The status comes before all, and a header in other letters is another one."""
    expected = recorded("A-completions-plain")
    name, value = expected.head.headers[1]
    headers = [expected.head.headers[0], (name.title(), value), *expected.head.headers[2:]]
    refused = expected._replace(head=expected.head._replace(status=400))
    renamed = expected._replace(head=expected.head._replace(headers=headers))

    assert differences(refused, expected) == ["status 400, not 200"]
    assert differences(renamed, expected)[0] == "headers: has 'Server: uvicorn'"
