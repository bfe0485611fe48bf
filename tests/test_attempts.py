"""What an attempt is: a kept connection that ends costs none, an engine at work always one."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import support
import tcp_support
from calls_support import hang_up, quick, replying, says, the_failure
from support import LIMIT, ONCE, SOON, a_task, failure, posts, sent
from tcp_support import Account

from vllm_http import (
    EngineUnavailable,
    RetryPolicy,
    Timeout,
    VllmHttpAdapter,
    _transport_delivery,
)
from vllm_http._transport_delivery import Delivery
from vllm_http.testing import Cut, FakeEngine, Status, Step, Wait, WireBytes


engine, account = support.engine, tcp_support.account


def keep_a_connection(adapter: VllmHttpAdapter) -> None:
    """Have one idle connection in the pool, and no question about the version left."""
    adapter.engine_version()
    adapter.models()


# A kept connection that ends.


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("cut", [Cut("rst"), Cut("fin")], ids=["rst", "fin"])
def test_engine_that_was_at_work_is_not_asked_for_free(
    engine: FakeEngine, attempts: int, cut: Step
) -> None:
    """A kept connection whose engine took the task and died later counts, as any other does."""
    for _ in range(attempts + 1):
        engine.script(Wait(LIMIT), cut)
    policy = RetryPolicy(attempts=attempts, base=0.001, cap=0.001)
    with VllmHttpAdapter(engine.url, retry=policy) as adapter:
        keep_a_connection(adapter)
        stream = adapter.submit(a_task())
        error, _ = failure(stream)

    assert isinstance(error, EngineUnavailable)
    assert sent(engine) == attempts


def test_answer_that_has_begun_was_read(engine: FakeEngine) -> None:
    """A kept connection that breaks within the headers, however early, is not a stale one."""
    engine.script(WireBytes(b"HTTP/1.1 200 OK\r\nserver: uvic"), Cut("rst"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        keep_a_connection(adapter)
        failure(adapter.submit(a_task()))

    assert sent(engine) == 1


def test_small_call_that_was_at_work() -> None:
    """The same holds for the calls that have one document as an answer."""

    def die_later(sock: socket.socket) -> None:
        threading.Event().wait(LIMIT)
        hang_up(sock)

    with (
        replying(says({"count": 1, "max_model_len": 9, "tokens": [5]}), die_later) as server,
        quick(server.url, retry=ONCE) as adapter,
    ):
        adapter.tokenize("Hello")
        error = the_failure(lambda: adapter.tokenize("Hello"))

    assert isinstance(error, EngineUnavailable)
    assert len(server.posts) == 2


def test_stale_connection_is_met_once_in_a_task(engine: FakeEngine) -> None:
    """The next attempts take fresh connections, though a refusal has left a kept one behind."""
    engine.script(Cut("rst"))
    engine.script(Status(503, {"error": {"message": "no", "code": 503}}))
    with VllmHttpAdapter(engine.url, retry=RetryPolicy(base=0.001)) as adapter:
        keep_a_connection(adapter)
        completion = adapter.submit(a_task()).result(timeout=SOON)

    assert completion.metrics is not None
    assert completion.metrics.attempts == sent(engine) == 3
    assert len({post.connection for post in posts(engine, 3)}) == 3


@pytest.mark.parametrize(
    ("before", "after", "rtt", "seconds", "unread"),
    [
        (100, 100, 0.0, 30.0, True),
        (100, 101, 0.0, 0.05, True),
        (100, 101, 0.0, 0.2, False),
        (100, 101, 0.3, 0.5, True),
        (100, 101, 0.3, 1.0, False),
        (None, None, 0.0, 0.05, True),
        (None, None, 0.0, 0.2, False),
        (100, None, 0.0, 0.2, False),
    ],
)
def test_who_can_have_read_a_request(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    before: int | None,
    after: int | None,
    rtt: float,
    seconds: float,
    unread: bool,
) -> None:
    """Nobody, if nothing was acknowledged, or the end came within about a round trip."""
    account.acked, account.rtt = before, rtt
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now)
    delivery = Delivery(None)

    account.acked = after
    monkeypatch.setattr("time.monotonic", lambda: now + seconds)
    delivery.settle(None)

    assert delivery.unread is unread


def test_what_the_system_tells() -> None:
    """Its account counts the bytes that the other side has acknowledged, and the round trip."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as near, server.accept()[0] as far:
            before, _ = _transport_delivery._account(near)
            near.sendall(b"x" * 1000)
            far.recv(1000)
            after, rtt = _transport_delivery._account(near)
        told = _transport_delivery._account(near)

    assert before is not None
    assert after == before + 1000
    assert 0 < rtt < 1
    assert told == (None, 0.0)  # closed


# A 408 for an idle connection.

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def test_408_on_a_kept_connection(engine: FakeEngine) -> None:
    """Some servers say so before they close an idle connection: it crosses the request."""
    engine.script(WireBytes(TIMED_OUT), Cut("fin"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        keep_a_connection(adapter)
        completion = adapter.submit(a_task()).result(timeout=SOON)

    assert completion.metrics is not None
    assert (completion.error, completion.metrics.attempts, sent(engine)) == (None, 2, 2)


def test_408_of_a_small_call() -> None:
    """There as well."""

    def time_out(sock: socket.socket) -> None:
        sock.sendall(TIMED_OUT)
        hang_up(sock)

    tokens = says({"count": 1, "max_model_len": 9, "tokens": [5]})
    with replying(tokens, time_out, tokens) as server, quick(server.url, retry=ONCE) as adapter:
        assert [adapter.tokenize("Hello").count for _ in range(2)] == [1, 1]

    assert len(server.posts) == 3


@pytest.mark.parametrize(
    ("kept", "steps"),
    [(False, []), (True, [Wait(LIMIT)])],
    ids=["fresh connection", "after a while"],
)
def test_408_for_the_request(engine: FakeEngine, kept: bool, steps: list[Step]) -> None:
    """On a fresh connection, or once the engine had the task for a while, it is the task's own."""
    engine.override("/version", 200, {"version": "1"}, {"connection": "close"})
    engine.script(*steps, WireBytes(TIMED_OUT), Cut("fin"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        adapter.engine_version()
        if kept:
            adapter.models()
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, Timeout)
    assert (error.status, sent(engine)) == (408, 1)
