"""Server-sent events: the WHATWG's rules, however the stream is cut, and a limit on one event."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sseclient import SSEClient
from wire import STREAMS, capture, cuts, halves, single_bytes

from vllm_http._sse import EventFramer


PLENTY = 1 << 20
BOM = "\ufeff"

# Whatever some library once took for the end of a line, for a colon, or for the end of a string.
texts = st.text("ab: \t\x00\x0b\x0c\x1c\x85\u2028\u2029\ufeff中😀", max_size=6)
lines = st.one_of(
    st.just(""),
    texts.map("data: {}".format),
    texts.map("data:{}".format),
    texts.map(": {}".format),
    texts.map("unknown: {}".format),
    texts.map("id: {}".format),
    texts.map("event: {}".format),
    texts,
    st.sampled_from(["data", "retry: 5", "event", "id", "Data: x", " data: x", "data : x"]),
)
ends = st.sampled_from(["\n", "\r\n", "\r"])
streams = st.builds(
    lambda bom, ended, rest: (bom + "".join(map("".join, ended)) + rest).encode(),
    st.sampled_from(["", "", BOM, BOM + BOM]),
    st.lists(st.tuples(lines, ends), max_size=12),
    lines,
)
plain_texts = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20)


def dispatched(stream: bytes) -> list[str]:
    """The data of a stream's messages by the WHATWG's rules (HTML, 9.2.6), but for empty data.

    Empty data is left out because no JSON is in it; events of other types are not messages.
    """
    every_line = re.split("\r\n|\n|\r", stream.decode().removeprefix(BOM))
    events: list[str] = []
    data: list[str] = []
    kind = ""
    for line in every_line[:-1]:  # the last one has no end yet
        field, _, value = line.partition(":")
        if not line:
            if kind in ("", "message"):
                events.append("\n".join(data))
            data, kind = [], ""
        elif field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            kind = value.removeprefix(" ")
    return [event for event in events if event]


def framed(pieces: list[bytes], limit: int = PLENTY) -> tuple[list[str], str | None]:
    """The payloads in the pieces up to a failure, and the failure."""
    framer = EventFramer(limit)
    payloads: list[str] = []
    for piece in pieces:
        payloads += [payload.decode() for payload in framer.feed(piece)]
        if framer.failure:
            break
    return payloads, framer.failure


# The rules.


@given(stream=streams)
@example(stream=b"data: a\n\r\ndata: b\r\n\rdata: c\r\r\n")
@example(stream=b"\xef\xbb\xbfdata: a\n\n")
@example(stream=b"data: a\r\n\r")
def test_every_stream_is_framed_by_the_rules_however_it_is_cut(stream: bytes) -> None:
    """Any mix of fields, comments and line ends, with or without BOM, cut at every byte."""
    expected = (dispatched(stream), None)

    for pieces in ([stream], single_bytes(stream), *halves(stream)):
        assert framed(pieces) == expected


@given(stream=streams, data=st.data())
def test_every_stream_is_framed_by_the_rules_in_many_pieces(
    stream: bytes, data: st.DataObject
) -> None:
    """Several cuts at once, and empty pieces, change nothing either."""
    assert framed(data.draw(cuts(stream))) == (dispatched(stream), None)


@given(texts=st.lists(plain_texts))
def test_fast_path_agrees_with_sseclient(texts: list[str]) -> None:
    """A run of plain data lines, which is split without sseclient-py, gives what that would."""
    stream = "".join(f"data: {text}\n\n" for text in texts).encode()

    assert framed([stream]) == (
        [event.data for event in SSEClient(iter([stream])).events() if event.data],
        None,
    )


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_stream_gives_its_events(name: str) -> None:
    """What vLLM sends, keep-alive comments included, is read as the rules have it."""
    body = capture(name).body

    assert framed([body]) == (dispatched(body), None)
    assert len(dispatched(body)) == body.count(b"data: ")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data:a\n\n", ["a"]),
        (b"data:  a \n\n", [" a "]),
        (b"data: a\ndata:\ndata: b\n\n", ["a\n\nb"]),
        (b"data\n\n", []),
        (b"data:\n\ndata: \n\n", []),
        (b": keep-alive\n\ndata: a\n\n", ["a"]),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", ["a", "b"]),
        (b"id: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b"event: message\ndata: a\n\n", ["a"]),
        (b"event\ndata: a\n\nevent:\ndata: b\n\n", ["a", "b"]),
        (b"event: ping\ndata: a\n\ndata: b\n\n", ["b"]),
        (b"event: ping\nevent: message\ndata: a\n\n", ["a"]),
        ("data: \u2028\x85\x00\n\n".encode(), ["\u2028\x85\x00"]),
        ((BOM + "data: a\n\n").encode(), ["a"]),
        ((BOM + BOM + "data: a\n\n").encode(), []),
        (("data: a\n\n" + BOM + "data: b\n\n").encode(), ["a"]),
        (b"", []),
    ],
)
def test_example_of_the_rules(stream: bytes, expected: list[str]) -> None:
    """What the rules mean, and what the reference above makes of them, in examples."""
    assert framed([stream]) == (expected, None)
    assert dispatched(stream) == expected


@pytest.mark.parametrize("rest", [b"data: b", b"data: b\n", b"data: b\r\n", b": c", b"data: b\r"])
def test_an_unfinished_event_is_never_given(rest: bytes) -> None:
    """Without its blank line an event is no event; it is there as `unfinished`."""
    framer = EventFramer(PLENTY)

    assert framer.feed(b"data: a\n\n" + rest) == [b"a"] or b"\r" in rest
    assert framer.feed(b"") == []
    assert framer.unfinished == rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def test_a_finished_stream_leaves_nothing_behind() -> None:
    """After a whole event nothing is unfinished."""
    framer = EventFramer(PLENTY)

    framer.feed(b"data: a\n\n")

    assert framer.unfinished == b""


# The limit.


def too_large(limit: int) -> str:
    """What happened, and what to do."""
    return f"an event of more than {limit} bytes; raise max_event_bytes to let it through"


EVENTS = [b"data: abcdef", b": a comment", b"data: a\ndata: b", b"data:abcdef", b"id: 1\ndata: a"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("blank_lines", [1, 2, 3])
def test_an_event_of_the_limit_passes_however_it_is_cut(event: bytes, blank_lines: int) -> None:
    """The limit itself is allowed; the blank lines around an event are no part of it."""
    stream = b"data: 1\n" + b"\n" * blank_lines + event + b"\n\n"

    for pieces in ([stream], single_bytes(stream), *halves(stream)):
        assert framed(pieces, len(event)) == (dispatched(stream), None)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("rest", [b"", b"\n", b"\n\n", b"\n\ndata: 2\n\n", b"xxx"])
def test_an_event_over_the_limit_fails_however_it_is_cut(event: bytes, rest: bytes) -> None:
    """One byte more is too much, finished or not; the events before it still come."""
    stream = b"data: 1\n\n" + event + rest
    limit = len(event) - 1

    for pieces in ([stream], single_bytes(stream), *halves(stream)):
        assert framed(pieces, limit) == (["1"], too_large(limit))


def test_nothing_comes_after_a_failure() -> None:
    """Once a stream has failed, no event of it is given any more."""
    framer = EventFramer(20)

    assert framer.feed(b"data: " + b"x" * 30) == []
    assert framer.failure is not None
    assert framer.feed(b"\n\ndata: a\n\n") == []
    assert framer.feed(b"data: b\n\n") == []


def test_many_small_events_are_not_one_large_event() -> None:
    """The limit is one event's; a read that brings many of them may be larger."""
    assert framed([b"data: 12345\n\n" * 100], 11) == (["12345"] * 100, None)


# What is not UTF-8.


@pytest.mark.parametrize(
    "line", [b"data:\xff", b": \xff", b"id: \xff\ndata: x", b"data: a\ndata: \xff"]
)
def test_bad_utf8_is_a_failure_after_the_events_before_it(line: bytes) -> None:
    """Bytes that are no text end the stream; what came before them is given."""
    framer = EventFramer(PLENTY)

    assert framer.feed(b": c\n\ndata: a\n\n" + line + b"\n\n") == [b"a"]
    assert framer.failure == "an event that is not UTF-8 (invalid start byte)"


def test_a_character_may_be_cut_anywhere() -> None:
    """A character that comes in two pieces is no bad UTF-8."""
    stream = ": 中\n\ndata: 中😀\n\n".encode()

    for pieces in ([stream], single_bytes(stream), *halves(stream)):
        assert framed(pieces) == (["中😀"], None)
