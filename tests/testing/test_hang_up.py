"""A client that leaves is noticed at once, whatever the engine is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from testing.raw_client import RawClient, read_chunk, read_head

from vllm_http.testing import (
    Done,
    EndBody,
    FakeEngine,
    Headers,
    Normal,
    Raw,
    Stall,
    Step,
    Tokens,
    Wait,
)


LONG = 60.0  # Seconds; no test waits for it.
LEAVE = {
    "close": RawClient.close,
    "reset": RawClient.reset,
    "half-close": RawClient.half_close,
}


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize(
    "steps",
    [
        (Stall(),),
        (Headers(), Stall()),
        (Wait(LONG),),
        (Wait(threading.Event()),),
        (Done(), Stall()),
    ],
    ids=["stall", "stall after headers", "seconds", "event", "stall after [DONE]"],
)
def test_hang_up_ends_a_wait(
    engine: FakeEngine,
    client: RawClient,
    steps: tuple[Step, ...],
    leave: Callable[[RawClient], None],
) -> None:
    """Closing, resetting and half-closing end every waiting step, and the load goes down."""
    engine.script(*steps)
    client.start()
    (request,) = engine.wait_for_requests(1)
    assert engine.running == 1

    leave(client)

    assert request.hung_up.wait(5)
    assert request.finished.wait(5)
    assert engine.running == 0


@pytest.mark.parametrize("stream", [True, False])
def test_hang_up_ends_a_slow_answer(stream: bool) -> None:
    """A client that leaves between two tokens, or before a whole answer, ends the work."""
    with FakeEngine(token_delay=LONG) as engine:
        with RawClient(engine) as client:
            client.request("POST", "/v1/completions", {"prompt": "Hi", "stream": stream})
            (request,) = engine.wait_for_requests(1)

        assert request.hung_up.wait(5)
        engine.wait_idle()


def test_hang_up_ends_a_scripted_pace() -> None:
    """Tokens at the engine's pace stop when nobody is left to read them."""
    with FakeEngine(token_delay=LONG) as engine:
        engine.script(Tokens(3))
        with RawClient(engine) as client:
            client.start()
            read_head(client.stream)
            read_chunk(client.stream)

        assert engine.requests[0].hung_up.wait(5)


def test_hang_up_ends_a_blocked_send(engine: FakeEngine) -> None:
    """A client that does not read and then leaves frees the engine from its full socket."""
    engine.script(Raw(bytes(16 * 2**20)))
    with RawClient(engine, buffer=4096) as client:
        client.start()
        (request,) = engine.wait_for_requests(1)
        read_head(client.stream)
        assert client.stream.readline() == b"1000000\r\n"
        client.reset()

    assert request.hung_up.wait(5)
    engine.wait_idle()


def test_early_next_request_is_no_hang_up(engine: FakeEngine, client: RawClient) -> None:
    """A request sent before the last answer ended is kept for its turn."""
    gate = threading.Event()
    engine.script(Wait(gate), Normal())
    client.start()
    engine.wait_for_requests(1)
    client.request("GET", "/version")
    gate.set()

    read_head(client.stream)
    while read_chunk(client.stream):
        pass

    assert read_head(client.stream).status == 200
    assert not engine.requests[0].hung_up.is_set()


def test_leaving_after_the_end_is_no_hang_up(engine: FakeEngine, client: RawClient) -> None:
    """A client that has the whole answer may close."""
    engine.script(Tokens(1), EndBody(), Wait(LONG))
    client.complete(stream=True)

    client.close()
    engine.wait_idle()

    (request,) = engine.requests
    assert request.finished.wait(5)
    assert not request.hung_up.is_set()


def test_close_of_the_engine_is_no_hang_up(engine: FakeEngine, client: RawClient) -> None:
    """A request that the engine itself cuts off is finished, not hung up."""
    engine.script(Stall())
    client.start()
    (request,) = engine.wait_for_requests(1)

    engine.close()

    assert request.finished.is_set()
    assert not request.hung_up.is_set()
    assert client.stream.read() == b""
