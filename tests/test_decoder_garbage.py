"""The decoder and what gateways, other versions and chance send: nothing may confuse it."""

from __future__ import annotations

import pytest
from decoding import DONE, decoder, delta, event, text, texts, verdict
from hypothesis import given
from hypothesis import strategies as st
from wire import cuts

from vllm_http import StreamingError, WorkerError


# What no vLLM sends.


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: <html>502</html>\n\n",
        b"data: {\n\n",
        b"data: \xff\n\n",
        b": c\n\ndata: \xff\n\n",
        b"data: 5\n\n",
        b"data: []\n\n",
        b"data: null\n\n",
        b'data: "[DONE]"\n\n',
        event(choices={}),
        event(choices=[5]),
        event(choices=[None]),
        event(choices="x"),
        text("a", index="x"),  # type: ignore[arg-type]
        text("a", index=True),
        text("a", index=1),
        text("a", index=-1),
        text(5),  # type: ignore[arg-type]
        text("a", 5),  # type: ignore[arg-type]
        event(choices=[{"delta": "a"}]),
        delta(content=["a"]),
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"error": ' + b"[" * 100_000 + b"\n\n",
        b'data: {"x": ' + b'{"x": ' * 100_000 + b"\n\n",
    ],
)
def test_garbage_ends_the_stream_after_the_tokens_before_it(garbage: bytes) -> None:
    """What no vLLM sends is an error that repeating cannot mend; no content is quoted in it."""
    stream = decoder()

    assert texts(stream.feed(text("a") + garbage + text("b", "stop") + DONE)) == ["a"]
    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert error.message.startswith("engine sent an event that is not ")
    assert "html" not in error.message
    assert error.retriable is False


def test_html_without_an_event_is_no_answer() -> None:
    """A gateway's page with status 200 holds no event at all."""
    stream = decoder()

    assert stream.feed(b"<html>\n\n<body>data</body>\n\n</html>\n") == []
    assert isinstance(verdict(stream), StreamingError)
    assert stream.begun is False


def test_an_event_that_is_too_large_ends_the_stream() -> None:
    """It is given up before it is whole; what came before is given."""
    stream = decoder(max_event_bytes=200)

    assert texts(stream.feed(text("a") + b'data: {"x": "' + b"x" * 200)) == ["a"]
    error = verdict(stream)
    assert isinstance(error, StreamingError)
    assert error.message == (
        "engine sent an event of more than 200 bytes; raise max_event_bytes to let it through"
    )
    assert error.retriable is False


@pytest.mark.parametrize("unicode", [b'data: {"x": "\xff"}\n\n', b'data: {"\xff": 1}\n\n'])
@pytest.mark.parametrize("neighbour", [b"", b": keep-alive\n\n"])
def test_bad_utf8_is_garbage_whatever_arrives_with_it(unicode: bytes, neighbour: bytes) -> None:
    """Bytes that are no text are refused in fields that nobody reads, too."""
    stream = decoder()

    stream.feed(neighbour + unicode)

    assert stream.failure is not None


# What may be there or not.


@pytest.mark.parametrize(
    "harmless",
    [
        event(),
        event(choices=None),
        event(choices=None, usage=None, error=None, object=None, message=None, code=None),
        event(choices=[]),
        event(choices=[{}]),
        event(choices=[{"delta": None, "text": None, "finish_reason": None, "logprobs": None}]),
        text(None, token_ids=None, stop_reason=None, logprobs=None),
        delta(content=None, reasoning=None, tool_calls=None, reasoning_content=None),
        event(choices=[], usage=None),
        event(choices=[], usage={"prompt_tokens": None, "prompt_tokens_details": None}),
        event(choices=[], usage={"prompt_tokens_details": {"cached_tokens": None}}),
        event(type="ping"),
        event(type="ping", message={"text": "still here"}),
        event(type="status", code="queued"),
        event(object="status", code=1.5),
        event(object=["error"]),
        event(timings={"queue": [1, {"x": None}]}),
    ],
)
def test_null_fields_and_unknown_events_are_ignored(harmless: bytes) -> None:
    """Any field may be null or missing, and a JSON object without choices says nothing to us."""
    stream = decoder()

    assert texts(stream.feed(text("a") + harmless + text("b", "stop") + DONE)) == ["a", "b"]
    assert verdict(stream) is None
    assert stream.content == 2


def test_unknown_fields_are_ignored() -> None:
    """A later vLLM may say more."""
    tokens = decoder().feed(
        event(choices=[{"text": "a", "new": {"x": [1]}}], usage={"new": 1}, id=None, new="x")
    )

    assert texts(tokens) == ["a"]


@pytest.mark.parametrize("reason", [7, "\n\n", None])
def test_a_stop_reason_is_text_a_token_or_nothing(reason: int | str | None) -> None:
    """It is kept as it came."""
    stream = decoder()

    stream.feed(text("a", "stop", stop_reason=reason) + DONE)

    assert [choice.stop_reason for choice in stream.choices] == [reason]


@given(
    words=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=8),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    data=st.data(),
)
def test_any_text_comes_out_as_it_went_in(
    words: list[str], line_end: bytes, data: st.DataObject
) -> None:
    """Whatever the characters, the line ends and the cuts, no text is changed."""
    stream = decoder()
    events = b"".join(map(text, words)) + text("", "stop") + DONE
    pieces = data.draw(cuts(events.replace(b"\n", line_end)))

    assert [token for piece in pieces for token in texts(stream.feed(piece))] == words
    assert verdict(stream) is None


@given(data=st.binary(max_size=60), prefix=st.sampled_from([b"", b"data: ", b'data: {"choices":']))
def test_no_bytes_make_it_raise(data: bytes, prefix: bytes) -> None:
    """Bytes at random end in a verdict of our own, never in a foreign exception."""
    stream = decoder()

    stream.feed(prefix + data + b"\n\n")

    assert isinstance(verdict(stream), WorkerError)
