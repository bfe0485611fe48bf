"""Steps around other steps: the same bytes, otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from testing.raw_client import RawClient, read_head

from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    Drip,
    FakeEngine,
    Forever,
    Headers,
    Normal,
    Raw,
    Stage,
    Stall,
    Status,
    Step,
    Text,
    Tokens,
    Truncate,
    WireBytes,
)


LONG = 60.0  # Seconds; no test waits for it.


class Sizes:
    """A step around another one that notes the sizes of what is sent."""

    def __init__(self, step: Step) -> None:
        self.sizes: list[int] = []
        self._step = step

    def play(self, stage: Stage) -> None:
        def note(send: Callable[[bytes], None], data: bytes) -> None:
            self.sizes.append(len(data))
            send(data)

        with stage.connection.sending_by(note):
            self._step.play(stage)


def without_date(answer: bytes) -> bytes:
    """An answer as it was sent, but for the one header that time changes."""
    lines = answer.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"date: "))


def whole(engine: FakeEngine, *steps: Step) -> bytes:
    """All bytes that a client gets for a script, up to the connection's end."""
    engine.script(*steps, Cut("fin"))
    with RawClient(engine) as client:
        client.start()
        return client.stream.read()


# Drip.


@pytest.mark.parametrize("step", [Status(503, {"a": 1}), Raw(b"\x00\xff"), WireBytes(b"abc")])
def test_drip_changes_no_byte(engine: FakeEngine, step: Step) -> None:
    """What drips comes to the same bytes, whichever step sends them."""
    assert without_date(whole(engine, Drip(step))) == without_date(whole(engine, step))


def test_drip_sends_single_bytes(engine: FakeEngine) -> None:
    """Headers, framing and body each go out byte by byte."""
    sizes = Sizes(Drip(Normal()))
    engine.script(sizes)
    with RawClient(engine) as client:
        response = client.complete(stream=True, max_tokens=2)

    assert len(response.texts) == 2
    assert set(sizes.sizes) == {1}


def test_drip_keeps_its_pace(engine: FakeEngine) -> None:
    """A pause follows each piece of the given size."""
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    sizes = Sizes(Drip(WireBytes(data), interval=0.01, size=8))
    begin = time.monotonic()

    assert whole(engine, sizes) == data
    assert sizes.sizes == [8, 8, 8, 8, 6]
    assert time.monotonic() - begin >= 0.05


def test_drip_is_over_with_its_step(engine: FakeEngine) -> None:
    """The steps after it send as ever."""
    after = Sizes(Done())

    whole(engine, Drip(Text("a")), after)

    assert after.sizes == [len(b"e\r\ndata: [DONE]\n\n\r\n")]


def test_client_that_leaves_ends_a_drip(engine: FakeEngine) -> None:
    """A pause between two bytes is no shelter from a client that leaves."""
    engine.script(Drip(Headers(), interval=LONG))
    with RawClient(engine) as client:
        client.start()
        assert client.stream.read(1) == b"H"

    assert engine.requests[0].hung_up.wait(5)


# Truncate.


def test_truncate_ends_at_any_byte(engine: FakeEngine) -> None:
    """Just the first bytes of a step come, be it none of them or all."""
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"

    for size in range(len(data) + 1):
        assert whole(engine, Truncate(WireBytes(data), size)) == data[:size]


def test_truncate_counts_over_several_sends(engine: FakeEngine) -> None:
    """Headers and events count together, and the cut may lie within any of them."""
    size = len(whole(engine, Tokens(2))) + 5

    data = whole(engine, Truncate(Normal(), size))

    assert len(data) == size
    assert data.count(b"data: ") == 2


def test_truncate_beyond_the_end_is_the_whole(engine: FakeEngine) -> None:
    """A step that sends less is played as it is."""
    assert whole(engine, Truncate(WireBytes(b"abc"), 9)) == b"abc"


def test_truncate_then_silence(engine: FakeEngine) -> None:
    """The script goes on after the last byte; a whole answer cut short is not ended by it."""
    engine.script(Truncate(Status(200, {"a": 1}), 20), Stall())
    with RawClient(engine) as client:
        client.start()
        assert client.stream.read(20) == b"HTTP/1.1 200 OK\r\ndat"

    assert engine.requests[0].hung_up.wait(5)


# Forever.


def test_forever_lasts_until_the_client_leaves(engine: FakeEngine) -> None:
    """A step comes again and again; only the client's leaving ends it."""
    engine.script(Forever(Comment("zzz"), interval=0.001))
    with RawClient(engine) as client:
        client.start()
        read_head(client.stream)
        assert client.stream.read(2 * 12) == 2 * b"7\r\n: zzz\n\n\r\n"

    assert engine.requests[0].hung_up.wait(5)
