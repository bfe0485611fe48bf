"""The decoder and any bytes: one result, however they are split, and nothing after it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from decoding import DONE, decoder, text, verdict
from fuzz.feeding import bodies, split_bodies
from hypothesis import example, given
from hypothesis import strategies as st
from values_support import facts
from wire import single_bytes

from vllm_http import Token, WorkerError


LIMITS = st.sampled_from([20, 300, 1 << 20])


def said(error: WorkerError | None) -> dict[str, Any]:
    """All of an error but how many bytes of an event were left: of blank ones, it varies."""
    known = facts(error)
    return known | {"message": known.get("message", "").partition(", ")[0]}


def outcome(pieces: Iterable[bytes], limit: int, choices: int = 1) -> dict[str, Any]:
    """All that a decoder makes of these pieces."""
    stream = decoder(choices, max_event_bytes=limit)
    tokens: list[Token] = []
    for piece in pieces:
        tokens += stream.feed(piece)
    return {
        "tokens": tokens,
        "done": stream.done,
        "content": stream.content,
        "begun": stream.begun,
        "choices": stream.choices,
        "usage": stream.usage,
        "verdict": said(verdict(stream)),
    }


@given(split=split_bodies(bodies), limit=LIMITS, choices=st.integers(1, 2))
@example(split=(b"\xef\xbb\xbf", [b"\xef", b"\xbb\xbf"]), limit=20, choices=1)
def test_splits_change_nothing(split: tuple[bytes, list[bytes]], limit: int, choices: int) -> None:
    """Tokens, counts and the verdict are those of the whole; only our errors are raised."""
    whole, pieces = split
    expected = outcome([whole], limit, choices)

    assert outcome(pieces, limit, choices) == expected
    assert outcome(single_bytes(whole), limit, choices) == expected


@given(split=split_bodies(bodies), limit=LIMITS)
def test_nothing_comes_after_the_end(split: tuple[bytes, list[bytes]], limit: int) -> None:
    """After [DONE] or a failure no byte gives a token, nor changes what was said."""
    stream = decoder(max_event_bytes=limit)
    for piece in split[1]:
        stream.feed(piece)
        if stream.over:
            break
    else:
        stream.feed(b"\n\n" + DONE)
    before = (stream.over, stream.done, stream.content, stream.choices, facts(verdict(stream)))

    assert stream.feed(b"\n\n" + text("late", "stop") + DONE) == []
    after = (stream.over, stream.done, stream.content, stream.choices, facts(verdict(stream)))
    assert (before[0], after) == (True, before)


@given(split=split_bodies(bodies))
def test_indices_have_no_gap(split: tuple[bytes, list[bytes]]) -> None:
    """Each choice's tokens are counted from 0, whatever is sent."""
    indices: dict[int, list[int]] = {}
    for token in outcome(split[1], 1 << 20)["tokens"]:
        indices.setdefault(token.choice, []).append(token.index)

    assert all(counted == list(range(len(counted))) for counted in indices.values())
