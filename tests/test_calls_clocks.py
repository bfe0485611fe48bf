"""embed, score, rerank, tokenize and detokenize: the time that they may take."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import support
from calls_support import (
    CALLS,
    PATHS,
    REFUSAL,
    TOKENS,
    every_call,
    quick,
    replying,
    says,
    the_failure,
)
from support import EARLY, LIMIT, ONCE, SOON, stopwatch

from vllm_http import (
    EngineUnavailable,
    RetryPolicy,
    Timeout,
    Timeouts,
)
from vllm_http.testing import FakeEngine


engine, deaf = support.engine, support.deaf


@every_call
def test_total_time_runs_out(call: str) -> None:
    """The call ends in time, the engine is hung up on, and nothing is tried again."""
    with (
        replying() as server,
        quick(server.url) as adapter,
    ):
        with stopwatch() as watch:
            error = the_failure(lambda: CALLS[call](adapter, timeout=LIMIT))
        assert server.hung_up.wait(SOON)

    assert isinstance(error, Timeout)
    assert (error.phase, error.retriable) == ("deadline", False)
    assert PATHS[call] in error.message
    assert LIMIT - EARLY <= watch.seconds < LIMIT + SOON
    assert len(server.posts) <= 1  # none, where a busy machine had no time to send it


def test_total_time_runs_out_in_the_midst_of_an_answer() -> None:
    """An answer that has begun is no answer."""

    def begin(sock: Any) -> None:
        sock.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n{"count": 2')
        sock.recv(1)

    with replying(begin) as server, quick(server.url) as adapter:
        error = the_failure(lambda: adapter.tokenize("Hello", timeout=LIMIT))

    assert isinstance(error, Timeout)
    assert error.phase == "deadline"


@pytest.mark.parametrize("pause", [0.1, 600.0])
def test_total_time_runs_out_between_two_attempts(pause: float) -> None:
    """The deadline is told in time, with the failure that used it up as its cause."""
    policy = RetryPolicy(attempts=1000, base=pause, cap=pause)
    with (
        replying(says(REFUSAL, 503)) as server,
        quick(server.url, retry=policy) as adapter,
        stopwatch() as watch,
    ):
        error = the_failure(lambda: adapter.tokenize("Hello", timeout=1.0))

    assert isinstance(error, Timeout)
    assert error.phase == "deadline"
    assert isinstance(error.__cause__, EngineUnavailable)
    assert 1.0 - EARLY <= watch.seconds < 1.0 + SOON


@pytest.mark.parametrize(
    "timeouts", [Timeouts(first_token=LIMIT), Timeouts(total=LIMIT)], ids=["first_token", "total"]
)
def test_time_of_the_adapter(timeouts: Timeouts) -> None:
    """Without a timeout of its own a call has the adapter's."""
    with (
        replying() as server,
        quick(server.url, timeouts=timeouts) as adapter,
        stopwatch() as watch,
    ):
        error = the_failure(lambda: adapter.embed("Hello"))

    assert isinstance(error, Timeout)
    assert LIMIT - EARLY <= watch.seconds < LIMIT + SOON


def test_own_time_wins() -> None:
    """A call's timeout replaces the adapter's, also where it is longer."""

    def late(sock: Any) -> None:
        threading.Event().wait(2 * LIMIT)
        says(TOKENS)(sock)

    with (
        replying(late) as server,
        quick(server.url, timeouts=Timeouts(first_token=LIMIT)) as adapter,
    ):
        assert adapter.tokenize("Hello", timeout=SOON).count == 2


def test_no_limit_at_all(engine: FakeEngine) -> None:
    """With all clocks off a call still gets its answer."""
    none = Timeouts(queued=None, connect=None, first_token=None, stall=None)
    with quick(engine.url, timeouts=none) as adapter:
        assert adapter.tokenize("Hello").count == 1


def test_connect_clock(deaf: str) -> None:
    """A connect that gets no answer is a Timeout of its own, tried again like a refused one."""
    with (
        quick(deaf, timeouts=Timeouts(connect=LIMIT), retry=ONCE) as adapter,
        stopwatch() as watch,
    ):
        error = the_failure(lambda: adapter.embed("Hello"))

    assert isinstance(error, Timeout)
    assert (error.phase, error.retriable) == ("connect", True)
    assert LIMIT - EARLY <= watch.seconds < LIMIT + SOON


def test_deadline_in_a_connect(deaf: str) -> None:
    """Where the call's time ends before the connect's, the deadline is told."""
    with quick(deaf, timeouts=Timeouts(connect=LIMIT + 0.2)) as adapter:
        error = the_failure(lambda: adapter.embed("Hello", timeout=LIMIT))

    assert isinstance(error, Timeout)
    assert error.phase == "deadline"
