"""Who closes a socket that is watched: whoever has it unwatched, after that.

A number that is closed while the selector has it is the next connection's, whose task would fail.
"""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Iterator

import pytest
import support
from support import SOON, a_task, answer

from vllm_http import VllmHttpAdapter
from vllm_http._chunked import BulkResponse
from vllm_http._connections_exchange import Exchange
from vllm_http._redact import Redactor
from vllm_http._transport import Transport
from vllm_http._transport_body import Body
from vllm_http._transport_endpoint import Endpoint
from vllm_http.testing import FakeEngine, Headers, Step, Text, Wait


engine, gate = support.engine, support.gate

CLOSES = {
    "it says so": Headers(headers=[("Connection", "close")]),
    "its body has no length": Headers(chunked=False),
}
KEEPS = {"it keeps the connection": Headers()}


def is_open(fileno: int) -> bool:
    """Whether the number belongs to an open file."""
    try:
        os.fstat(fileno)
    except OSError:
        return False
    return True


@pytest.fixture
def transport(engine: FakeEngine) -> Iterator[Transport]:
    """A way to the engine."""
    transport = Transport(Endpoint(engine.url, {}, {}, True, None, False, 4), Redactor())
    yield transport
    transport.close()


def opened(transport: Transport, exchange: Exchange) -> Body:
    """An accepted answer, read as far as its first event."""
    body = b'{"prompt": "x", "model": "fake-model", "stream": true}'
    answer = transport.stream(exchange, "/v1/completions", body, {}, 5.0, "text/event-stream")
    assert answer.read()
    return answer


@pytest.mark.parametrize("how", [*CLOSES, *KEEPS])
def test_watched_descriptor_is_open_until_it_is_unwatched(
    engine: FakeEngine, transport: Transport, how: str
) -> None:
    """Whatever has been read of the body, its end too."""
    engine.script({**CLOSES, **KEEPS}[how], Text("a"), Wait(0.02), *answer("b"))
    body = opened(transport, Exchange())
    seen: list[int] = []
    assert body.dont_block()
    body.watch(seen.append, lambda fileno: seen.append(is_open(fileno)))
    (fileno,) = seen

    while not body.ended:
        assert select.select([fileno], [], [], SOON)[0]
        body.read_ready()

    assert is_open(fileno)
    body.release()
    assert seen == [fileno, True]
    assert is_open(fileno) == (how in KEEPS)


def test_copy_in_a_child_is_not_told_of(engine: FakeEngine, transport: Transport) -> None:
    """A process that was forked meanwhile holds the socket open; nobody here hears of it again."""
    engine.script(CLOSES["it says so"], Text("a"), Wait(0.02), *answer("b"), Wait(0.05))
    body = opened(transport, Exchange())
    body.dont_block()
    with select.epoll() as poll:
        body.watch(poll.register, poll.unregister)
        assert poll.poll(SOON)
        (fileno, _), *_ = poll.poll(SOON)
        copy = os.dup(fileno)  # what a fork gives the child
        body.release()

        assert select.select([copy], [], [], SOON)[0]  # the engine's FIN
        assert poll.poll(0) == []
    os.close(copy)


def test_abort_that_comes_late_touches_no_other_socket(
    engine: FakeEngine, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a socket is closed its exchange forgets it, also where the answer was its last."""
    engine.script(CLOSES["it says so"], Text("a"), Wait(0.02), *answer("b"))
    exchange = Exchange()
    body = opened(transport, exchange)
    held: list[object] = []
    close = BulkResponse.close

    def note(self: BulkResponse) -> None:
        held.append(exchange._sock)
        close(self)

    monkeypatch.setattr(BulkResponse, "close", note)

    body.release()

    assert held[:1] == [None]


def steps(how: str, gates: list[Step]) -> list[Step]:
    """An answer whose end comes in one read with its last token."""
    return [CLOSES[how], Text("a"), *gates, *answer("b")]


@pytest.mark.parametrize("how", CLOSES)
def test_closing_engine_fails_nobody(engine: FakeEngine, how: str) -> None:
    """Streams in step, and new ones at once behind those that end."""
    for _ in range(320):
        engine.script(*steps(how, [Wait(0.01)]))
    with VllmHttpAdapter(engine.url, max_concurrency=16) as adapter:
        tasks = (a_task() for _ in range(320))
        ends = Counter(repr(done.error) for done in adapter.map(tasks, ordered=False))

    assert ends == {"None": 320}
