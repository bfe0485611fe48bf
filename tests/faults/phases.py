"""Every phase in which a task can be told to end, and how it is brought there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from peers import Peer
from support import SOON, a_task, answer, deaf_port, kinds, posts, wait_until

from vllm_http import RetryPolicy, Started, Timeouts, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Headers, Stall, Status, Step, Text, Tokens


CONNECT = 1.5  # Seconds that a connect may keep the worker's thread.


@dataclass(frozen=True)
class Scene:
    """A task in its phase.

    Attributes:
        stream: The task's.
        left: Set once the other side has seen the hang-up; None where nothing has reached it.
        engine: Who plays; None where it is no engine.
        waits: Whether its caller can be blocked in the iterator.
    """

    stream: TokenStream
    left: threading.Event | None = None
    engine: FakeEngine | None = None
    waits: bool = True


Phase: TypeAlias = Callable[[], AbstractContextManager[Scene]]


@contextmanager
def _played(*steps: Step) -> Iterator[tuple[FakeEngine, TokenStream]]:
    """An engine that plays these steps, and a task that has reached it."""
    retry = RetryPolicy(max_retry_after=60)
    with FakeEngine() as engine, VllmHttpAdapter(engine.url, queue_size=2, retry=retry) as adapter:
        engine.script(*steps)
        stream = adapter.submit(a_task())
        posts(engine)
        yield engine, stream


@contextmanager
def queued() -> Iterator[Scene]:
    """It waits for a worker, behind another."""
    with FakeEngine() as engine:
        engine.script(Stall())
        with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter, adapter.submit(a_task()):
            posts(engine)
            yield Scene(adapter.submit(a_task()), engine=engine)


@contextmanager
def connecting() -> Iterator[Scene]:
    """Nobody accepts its connection."""
    with deaf_port() as url:
        adapter = VllmHttpAdapter(url, timeouts=Timeouts(connect=CONNECT))
        stream = adapter.submit(a_task())
        wait_until(lambda: stream._run._exchange is not None)
        yield Scene(stream)
        adapter.close(timeout=0)


@contextmanager
def shaking_hands() -> Iterator[Scene]:
    """Its connection was accepted, and its TLS hello gets no answer."""
    came, left = threading.Event(), threading.Event()

    def say_nothing(sock: socket.socket) -> None:
        try:
            while sock.recv(65536):
                came.set()
        finally:
            left.set()

    with Peer(say_nothing) as peer, VllmHttpAdapter(peer.url("https")) as adapter:
        adapter._version._known = "any"  # so that nobody else says hello to ask for it
        stream = adapter.submit(a_task())
        assert came.wait(SOON)
        yield Scene(stream, left)


@contextmanager
def waiting_for_headers() -> Iterator[Scene]:
    """Its request has arrived and got no answer."""
    with _played(Stall()) as (engine, stream):
        yield Scene(stream, posts(engine)[0].hung_up, engine)


@contextmanager
def waiting_for_a_token() -> Iterator[Scene]:
    """The engine has accepted it and says no more."""
    with _played(Headers(), Stall()) as (engine, stream):
        assert isinstance(stream.get(timeout=SOON), Started)
        yield Scene(stream, posts(engine)[0].hung_up, engine)


@contextmanager
def mid_stream() -> Iterator[Scene]:
    """It has had tokens and waits for more."""
    with _played(Tokens(2), Stall()) as (engine, stream):
        assert kinds(next(stream) for _ in range(3)) == ["started", "token", "token"]
        yield Scene(stream, posts(engine)[0].hung_up, engine)


@contextmanager
def full_queue() -> Iterator[Scene]:
    """Its caller takes nothing, so that reading has stopped."""
    with _played(*[Text("x" * 500_000)] * 20, Stall()) as (engine, stream):
        wait_until(lambda: stream.receiver.qsize() >= 2)
        yield Scene(stream, posts(engine)[0].hung_up, engine, waits=False)


@contextmanager
def backoff() -> Iterator[Scene]:
    """It waits for its second attempt."""
    with _played(Status(503, headers={"retry-after": "50"})) as (engine, stream):
        wait_until(lambda: stream._run._backoff is not None)
        yield Scene(stream, engine=engine)


@contextmanager
def draining() -> Iterator[Scene]:
    """Its ``[DONE]`` was sent, and the end of the body is late."""
    with _played(*answer("a"), Stall()) as (engine, stream):
        assert kinds([next(stream), next(stream)]) == ["started", "token"]
        yield Scene(stream, posts(engine)[0].hung_up, engine)


PHASES: list[Phase] = [
    queued,
    connecting,
    shaking_hands,
    waiting_for_headers,
    waiting_for_a_token,
    mid_stream,
    full_queue,
    backoff,
    draining,
]
AT_THE_ENGINE: list[Phase] = [
    shaking_hands,
    waiting_for_headers,
    waiting_for_a_token,
    mid_stream,
    full_queue,
    draining,
]
SENT_ONCE: list[Phase] = [queued, backoff]
"""One request has reached the engine, and a second is to come."""
