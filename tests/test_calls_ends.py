"""embed, score, rerank, tokenize and detokenize: a close, a signal or a fork in their midst."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import support
from calls_support import (
    CALLS,
    REFUSAL,
    TOKENS,
    Reply,
    every_call,
    quick,
    replying,
    says,
    the_failure,
)
from forking import forks, in_a_child
from support import LIMIT, ONCE, SOON, stopwatch, wait_until

from vllm_http import (
    AdapterClosed,
)
from vllm_http.testing import FakeEngine


engine = support.engine


@every_call
def test_close_ends_what_waits_for_an_answer(call: str) -> None:
    """close() ends the call at once, and the engine is hung up on."""
    with (
        replying() as server,
        quick(server.url, retry=ONCE) as adapter,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(the_failure, lambda: CALLS[call](adapter))
        assert server.came.acquire(timeout=SOON)
        with stopwatch() as watch:
            adapter.close(timeout=4 * SOON)
            error = answer.result(timeout=SOON)
        assert server.hung_up.wait(SOON)

    assert type(error) is AdapterClosed
    assert watch.seconds < 3 * SOON
    assert len(server.posts) == 1


def test_close_ends_a_backoff() -> None:
    """A call that waits for its next attempt makes none after close()."""
    later = says(REFUSAL, 503, "retry-after: 20")
    with replying(later) as server, quick(server.url) as adapter, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(the_failure, lambda: adapter.tokenize("Hello"))
        assert server.came.acquire(timeout=SOON)
        wait_until(lambda: not adapter._asker._live)  # it has its refusal
        with stopwatch() as watch:
            adapter.close(timeout=4 * SOON)
            error = answer.result(timeout=SOON)

    assert type(error) is AdapterClosed
    assert watch.seconds < 3 * SOON
    assert len(server.posts) == 1


def test_close_ends_every_backoff() -> None:
    """Several callers that wait are all told."""
    later = says(REFUSAL, 503, "retry-after: 20")
    with replying(later) as server, quick(server.url) as adapter, ThreadPoolExecutor(3) as pool:
        ask = partial(the_failure, lambda: adapter.tokenize("Hello"))
        answers = [pool.submit(ask) for _ in range(3)]
        for _ in answers:
            assert server.came.acquire(timeout=SOON)
        wait_until(lambda: not adapter._asker._live)  # they have their refusals
        adapter.close()
        errors = [answer.result(timeout=SOON) for answer in answers]

    assert {type(error) for error in errors} == {AdapterClosed}


@contextlib.contextmanager
def on_alarm(handler: Callable[[], None]) -> Iterator[None]:
    """Have it called by a signal, on this thread, in the midst of the block."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reply", [None, says(REFUSAL, 503, "retry-after: 20")])
def test_signal_handler_closes(reply: Reply | None) -> None:
    """A handler that closes the adapter ends the call or the backoff that it interrupts."""
    with (
        replying(*filter(None, [reply])) as server,
        quick(server.url) as adapter,
        on_alarm(adapter.close),
        stopwatch() as watch,
    ):
        assert type(the_failure(lambda: adapter.embed("Hello"))) is AdapterClosed

    assert watch.seconds < LIMIT + 4


def test_ctrl_c_frees_the_engine() -> None:
    """A caller who is interrupted hangs up; the adapter works on."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with replying() as server, quick(server.url) as adapter:
        with pytest.raises(KeyboardInterrupt), on_alarm(interrupt):
            adapter.embed("Hello")
        assert server.hung_up.wait(SOON)
        server.replies = [says(TOKENS)]
        assert adapter.tokenize("Hello").count == 2


@forks
def test_forked_child_has_calls_of_its_own(engine: FakeEngine) -> None:
    """A child asks on connections of its own, while a call of the parent waits."""
    with (
        replying() as server,
        quick(server.url) as waiting,
        quick(engine.url) as adapter,
        ThreadPoolExecutor(1) as pool,
    ):
        adapter.tokenize("Hello")
        answer = pool.submit(the_failure, lambda: waiting.embed("Hello"))
        assert server.came.acquire(timeout=SOON)

        def child() -> list[object]:
            waiting.close()
            return [
                type(the_failure(lambda: waiting.embed("a"))).__name__,
                adapter.embed("a").tokens_in,
            ]

        assert in_a_child(child) == ["AdapterClosed", 1]
        assert not server.hung_up.is_set()
        assert adapter.tokenize("Hello").count == 1
        waiting.close()
        assert type(answer.result(timeout=SOON)) is AdapterClosed

    assert engine.connections == 2


@every_call
def test_closed_adapter_asks_nothing(engine: FakeEngine, call: str) -> None:
    """After close() a call says so, and nothing goes out."""
    adapter = quick(engine.url)
    adapter.close()

    assert type(the_failure(lambda: CALLS[call](adapter))) is AdapterClosed
    assert engine.requests == []
