"""Scripts that a connection meets before its first request, and engines that come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from testing.raw_client import RawClient, read_chunk, read_head, read_response

from vllm_http.testing import (
    ConnectionStage,
    ConnectionStep,
    Cut,
    FakeEngine,
    Ignore,
    SlowReader,
    Stall,
    Text,
    Wait,
    WireBytes,
)


MORE_THAN_BUFFERS_HOLD = bytes(32 * 2**20)
LONG = 60.0  # Seconds; no test waits for it.
SILENCES = [Stall(), Ignore(), Wait(LONG), Ignore(LONG), Wait(threading.Event())]
SILENCES += [Ignore(threading.Event())]
LEAVE = {"close": RawClient.close, "reset": RawClient.reset, "half-close": RawClient.half_close}


# The steps.


def test_silent_connection_is_never_answered(engine: FakeEngine) -> None:
    """Stall accepts a connection and answers nothing that it sends."""
    engine.script_connection(Stall())

    with RawClient(engine, timeout=0.05) as client:
        client.request("GET", "/health")
        with pytest.raises(TimeoutError):
            client.stream.read(1)

    assert engine.requests == []


def test_connection_is_closed_at_once(engine: FakeEngine) -> None:
    """Cut("fin") closes a connection to which nothing was said."""
    engine.script_connection(Cut("fin"))

    with RawClient(engine) as client:
        assert client.stream.read() == b""


def test_connection_is_reset_at_once(engine: FakeEngine) -> None:
    """Cut("rst") resets a connection, as early as in the client's connect."""
    engine.script_connection(Cut("rst"))

    with pytest.raises(ConnectionResetError), RawClient(engine) as client:
        client.stream.read()


def test_connection_is_served_after_its_script(engine: FakeEngine) -> None:
    """What was sent while the script lasted is a request, and is answered after it."""
    gate = threading.Event()
    engine.script_connection(Wait(gate))

    with RawClient(engine) as client:
        client.request("GET", "/version")
        engine.wait_for_connections(1)
        assert engine.requests == []
        gate.set()

        assert read_response(client.stream).json == {"version": "0.32.0"}


def test_server_speaks_first(engine: FakeEngine) -> None:
    """WireBytes greet a client that has said nothing."""
    engine.script_connection(WireBytes(b"SSH-2.0-x\r\n"), Cut("fin"))

    with RawClient(engine) as client:
        assert client.stream.read() == b"SSH-2.0-x\r\n"


def test_nothing_is_read(engine: FakeEngine) -> None:
    """Ignore leaves the client's bytes unread, until its sending blocks."""
    engine.script_connection(Ignore())

    with RawClient(engine, timeout=0.1) as client, pytest.raises(TimeoutError):
        client.send(MORE_THAN_BUFFERS_HOLD)


def test_stall_reads(engine: FakeEngine) -> None:
    """Stall, in contrast, takes in all that the client sends."""
    engine.script_connection(Stall())

    with RawClient(engine) as client:
        client.send(MORE_THAN_BUFFERS_HOLD)


def test_what_was_ignored_is_read_afterwards(engine: FakeEngine) -> None:
    """After its span the request that waited in the buffers is served."""
    gate = threading.Event()
    engine.script_connection(Ignore(gate))

    with RawClient(engine) as client:
        client.request("GET", "/version")
        gate.set()

        assert read_response(client.stream).head.status == 200


def test_slow_reader_takes_its_time(engine: FakeEngine) -> None:
    """SlowReader takes a request in small pieces with a rest before each, and loses none of it."""
    engine.script_connection(SlowReader(size=64, interval=0.01))
    prompt = "x" * 640

    with RawClient(engine) as client:
        begin = time.monotonic()
        response = client.complete(prompt=prompt)

    assert response.head.status == 200
    assert engine.requests[0].json["prompt"] == prompt
    assert time.monotonic() - begin >= 0.1


def test_own_connection_steps_are_welcome(engine: FakeEngine) -> None:
    """Anything with a play method that asks for no request is a connection's step."""

    class Greet:
        def play(self, stage: ConnectionStage) -> None:
            stage.wire(b"Hello")
            stage.connection.cut(reset=False)

    engine.script_connection(Greet())

    with RawClient(engine) as client:
        assert client.stream.read() == b"Hello"


# Whose turn it is.


def test_connection_scripts_queue_up(engine: FakeEngine) -> None:
    """Each script meets one connection, in their order; then connections are served again."""
    engine.script_connection(WireBytes(b"1"), Cut("fin"))
    engine.script_connection(WireBytes(b"2"), Cut("fin"))

    for expected in (b"1", b"2"):
        with RawClient(engine) as client:
            assert client.stream.read() == expected
    with RawClient(engine) as client:
        assert client.get("/health").head.status == 200


def test_open_connection_takes_no_connection_script(engine: FakeEngine, client: RawClient) -> None:
    """A script waits for a new connection; those that stand go on."""
    client.get("/health")
    engine.script_connection(Cut("rst"))

    assert client.get("/health").head.status == 200


def test_connection_script_leaves_the_requests_script(engine: FakeEngine) -> None:
    """A connection that is cut before its request does not use up a request's script."""
    engine.script_connection(Cut("fin"))
    engine.script(Text("mine"))

    with RawClient(engine) as client:
        client.stream.read()
    with RawClient(engine) as client:
        assert client.complete(stream=True).texts == ["mine"]


# Their end.


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize("step", SILENCES, ids=lambda step: repr(step)[:16])
def test_client_that_leaves_ends_a_silence(
    engine: FakeEngine, step: ConnectionStep, leave: Callable[[RawClient], None]
) -> None:
    """Closing, resetting and half-closing end every silence, though bytes lie unread."""
    engine.script_connection(step)
    with RawClient(engine) as client:
        client.request("GET", "/health")
        engine.wait_for_connections(1)
        assert engine.open_connections == 1

        leave(client)

        engine.wait_disconnected()
    assert engine.open_connections == 0


@pytest.mark.parametrize("step", [*SILENCES, SlowReader(1, LONG)], ids=lambda step: repr(step)[:16])
def test_close_ends_a_silence(engine: FakeEngine, step: ConnectionStep) -> None:
    """The engine's close waits for no script and no slow reader."""
    engine.script_connection(step)
    with RawClient(engine) as client:
        client.send(b"GET")
        engine.wait_for_connections(1)

        engine.close()

        assert engine.open_connections == 0


def test_waits_for_connections_give_up(engine: FakeEngine, client: RawClient) -> None:
    """A wait in vain says how many connections there were, or are."""
    client.get("/health")

    with pytest.raises(TimeoutError, match="2 connections; there came 1"):
        engine.wait_for_connections(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="1 connections are still open"):
        engine.wait_disconnected(timeout=0.01)


# The engine's own coming and going.


def test_engine_that_stops_listening_refuses(engine: FakeEngine) -> None:
    """New connections are refused until the engine starts again, on the same port."""
    engine.stop_listening()
    engine.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        RawClient(engine)

    engine.start()

    with RawClient(engine) as client:
        assert client.get("/health").head.status == 200


def test_engine_that_stops_listening_goes_on_answering(
    engine: FakeEngine, client: RawClient
) -> None:
    """What was begun is finished, and the connection stays."""
    gate = threading.Event()
    engine.script(Text("a"), Wait(gate), Text("b"))
    client.start()
    read_head(client.stream)

    engine.stop_listening()
    gate.set()

    assert [b'"a"' in read_chunk(client.stream), b'"b"' in read_chunk(client.stream)] == [True] * 2
    assert read_chunk(client.stream) == b""
    assert client.get("/health").head.status == 200


def test_close_after_stop_listening_cuts_what_stands(engine: FakeEngine, client: RawClient) -> None:
    """An engine that only refuses can still die."""
    client.get("/health")
    engine.stop_listening()

    engine.close()

    assert client.stream.read() == b""
    assert engine.open_connections == 0
