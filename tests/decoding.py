"""A decoder, and the events that it is fed with."""

from __future__ import annotations

import json
from typing import Any

from vllm_http import Token, WorkerError
from vllm_http._decoder import Decoder
from vllm_http._redact import Redactor


DONE = b"data: [DONE]\n\n"


def decoder(choices: int = 1, max_event_bytes: int = 1 << 20) -> Decoder:
    """A decoder of a new attempt; its adapter's key is `hunter2`."""
    return Decoder(choices=choices, max_event_bytes=max_event_bytes, redact=Redactor(["hunter2"]))


def event(**fields: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def text(words: str | None, finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    """One event of a completion."""
    choice = {"index": index, "text": words, "finish_reason": finish, **fields}
    return event(choices=[choice])


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """One event of a chat."""
    return event(choices=[{"index": 0, "delta": fields, "finish_reason": finish}])


def texts(tokens: list[Token]) -> list[str]:
    """The tokens' texts."""
    return [token.text for token in tokens]


def verdict(stream: Decoder) -> WorkerError | None:
    """What `finish` raises."""
    try:
        stream.finish()
    except WorkerError as error:
        return error
    return None


def ended(*events: bytes, choices: int = 1) -> WorkerError | None:
    """The verdict on a stream of these events."""
    stream = decoder(choices)
    for one in events:
        stream.feed(one)
    return verdict(stream)


def read(*events: bytes) -> tuple[Decoder, list[Token]]:
    """A stream with these events and an end, which it is not refused for."""
    stream = decoder()
    tokens = [token for one in events for token in stream.feed(one)]
    tokens += stream.feed(text(None, "stop") + DONE)
    assert verdict(stream) is None
    return stream, tokens


def raw(json_text: str) -> bytes:
    """An event with this JSON, to the letter."""
    return b"data: " + json_text.encode() + b"\n\n"
