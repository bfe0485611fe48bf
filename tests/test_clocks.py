"""Each clock, what it counts, and what the error says when it has run out."""

from __future__ import annotations

import math
import threading
import time

import pytest
import support
from support import (
    EARLY,
    LIMIT,
    ONCE,
    QUICKLY,
    SOON,
    Drip,
    a_task,
    answer,
    failure,
    kinds,
    posts,
    ran_out,
    sent,
    stopwatch,
    the_error,
    wait_until,
)

from vllm_http import RetryPolicy, Timeouts, VllmHttpAdapter
from vllm_http._reader import Reader
from vllm_http.testing import FakeEngine, Headers, Role, Stall, Status, Step, Text, Wait


engine, deaf, silent = support.engine, support.deaf, support.silent

DRIPPING = Drip(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n")
COMMENTS = Drip(b"e\r\n: keep-alive\n\n\r\n")


def test_queued(engine: FakeEngine) -> None:
    """A task that finds no free worker in time fails without a request."""
    engine.script(Stall())
    with (
        VllmHttpAdapter(engine.url, max_concurrency=1, timeouts=Timeouts(queued=LIMIT)) as adapter,
        adapter.submit(a_task()) as blocker,
    ):
        posts(engine)
        with stopwatch() as watch:
            error, seen = failure(adapter.submit(a_task()))
        assert sent(engine) == 1
        assert not blocker.done

    ran_out(error, "queued", watch)
    assert seen == ["error"]
    assert error.retriable


def test_queued_task_frees_its_place(engine: FakeEngine) -> None:
    """A task that waited too long leaves room for another one to wait."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=1) as adapter:
        blocker = adapter.submit(a_task())
        posts(engine)
        the_error(adapter.submit(a_task(), timeouts=Timeouts(queued=0.05)))
        waiting = adapter.submit(a_task())
        blocker.close()

        assert waiting.result(timeout=SOON).error is None


def test_connect(deaf: str) -> None:
    """A connect without an answer is a Timeout of its own phase, and never started."""
    with (
        VllmHttpAdapter(deaf, timeouts=Timeouts(connect=LIMIT), retry=ONCE) as adapter,
        stopwatch() as watch,
    ):
        error, seen = failure(adapter.submit(a_task()))

    ran_out(error, "connect", watch)
    assert seen == ["error"]
    assert error.retriable


def test_connect_is_retried(deaf: str) -> None:
    """A connect that takes too long is tried again like a refused one."""
    retry = RetryPolicy(attempts=3, base=0.001)
    with (
        VllmHttpAdapter(deaf, timeouts=Timeouts(connect=LIMIT), retry=retry) as adapter,
        stopwatch() as watch,
    ):
        error, _ = failure(adapter.submit(a_task()))

    ran_out(error, "connect", watch, 3 * LIMIT)


def test_connect_covers_the_handshake(silent: str) -> None:
    """A server that never answers the TLS hello is a connect timeout too."""
    url = silent.replace("http:", "https:")
    with (
        VllmHttpAdapter(url, timeouts=Timeouts(connect=LIMIT), retry=ONCE) as adapter,
        stopwatch() as watch,
    ):
        error, _ = failure(adapter.submit(a_task()))

    ran_out(error, "connect", watch)


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        pytest.param([Stall()], ["error"], id="no headers"),
        pytest.param([Headers(), Stall()], ["started", "error"], id="headers"),
        pytest.param([Headers(), COMMENTS], ["started", "error"], id="comments"),
        pytest.param([Role(), Stall()], ["started", "error"], id="role"),
        pytest.param([DRIPPING], ["error"], id="dripping head"),
    ],
)
def test_first_token(engine: FakeEngine, steps: list[Step], seen: list[str]) -> None:
    """Nothing but content stops the first_token clock, and its expiry is not tried again."""
    engine.script(*steps)
    timeouts = Timeouts(first_token=LIMIT)
    with VllmHttpAdapter(engine.url, timeouts=timeouts, retry=QUICKLY) as adapter:
        with stopwatch() as watch:
            error, events = failure(adapter.submit(a_task()))
        assert posts(engine)[0].hung_up.wait(SOON)

    ran_out(error, "first_token", watch)
    assert events == seen
    assert error.retriable
    assert sent(engine) == 1


def test_first_token_of_each_attempt(engine: FakeEngine) -> None:
    """The first_token clock starts anew with every attempt."""
    engine.script(Wait(LIMIT), Status(503))
    engine.script(Wait(LIMIT), *answer("a"))
    timeouts = Timeouts(first_token=LIMIT * 1.6)

    with VllmHttpAdapter(engine.url, timeouts=timeouts, retry=QUICKLY) as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).text == "a"


def test_first_token_does_not_count_the_queue(engine: FakeEngine) -> None:
    """Waiting for a worker uses up nothing of first_token."""
    engine.script(Wait(2 * LIMIT), *answer("a"))
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        first = adapter.submit(a_task())
        second = adapter.submit(a_task(), timeouts=Timeouts(first_token=LIMIT))

        assert first.result(timeout=SOON).error is None
        assert second.result(timeout=SOON).error is None


@pytest.mark.parametrize("silence", [Stall(), COMMENTS], ids=["nothing", "comments"])
def test_stall(engine: FakeEngine, silence: Step) -> None:
    """Content that stops coming is a stall, comments or not; what came is kept."""
    engine.script(Text("a"), Text("b"), silence)
    with VllmHttpAdapter(engine.url, timeouts=Timeouts(stall=LIMIT)) as adapter:
        with stopwatch() as watch:
            error, seen = failure(adapter.submit(a_task()))
        assert posts(engine)[0].hung_up.wait(SOON)

    ran_out(error, "stall", watch)
    assert seen == ["started", "token", "token", "error"]
    assert error.retriable
    assert sent(engine) == 1


def test_stall_before_the_done(engine: FakeEngine) -> None:
    """A server that goes silent after the last token and before [DONE] is caught as well."""
    engine.script(*answer("a")[:-1], Stall())
    with (
        VllmHttpAdapter(engine.url, timeouts=Timeouts(stall=LIMIT)) as adapter,
        stopwatch() as watch,
    ):
        error, _ = failure(adapter.submit(a_task()))

    ran_out(error, "stall", watch)


def test_steady_content_is_no_stall(engine: FakeEngine) -> None:
    """Each piece of content starts the stall clock anew."""
    pieces = [step for letter in "abcdef" for step in (Wait(LIMIT / 3), Text(letter))]
    engine.script(*pieces, *answer())

    with VllmHttpAdapter(engine.url, timeouts=Timeouts(stall=LIMIT)) as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).text == "abcdef"


@pytest.mark.parametrize("size", [1, 10], ids=["small", "large"])
def test_slow_caller_is_no_stall(engine: FakeEngine, size: int) -> None:
    """The stall clock stands still while events wait for the caller."""
    texts = [letter * 100_000 * size for letter in "abcdefghij"]
    engine.script(*answer(*texts))
    timeouts = Timeouts(stall=3 * LIMIT)
    with VllmHttpAdapter(engine.url, queue_size=1, timeouts=timeouts) as adapter:
        stream = adapter.submit(a_task())
        wait_until(lambda: stream.receiver.qsize() > 0)
        threading.Event().wait(5 * LIMIT)

        assert stream.result(timeout=SOON).text == "".join(texts)


def test_stall_after_a_slow_caller(engine: FakeEngine) -> None:
    """Once the caller has caught up, the engine's silence counts, from then on."""
    texts = [letter * 1_000_000 for letter in "abcdefghij"]
    engine.script(*map(Text, texts), Stall())
    timeouts = Timeouts(stall=LIMIT)
    with VllmHttpAdapter(engine.url, queue_size=1, timeouts=timeouts) as adapter:
        stream = adapter.submit(a_task())
        wait_until(lambda: stream.receiver.qsize() > 0)
        threading.Event().wait(2 * LIMIT)
        seen = [stream.get(timeout=SOON) for _ in range(1 + len(texts))]
        with stopwatch() as watch:
            error, rest = failure(stream)

    assert seen[-1] is not None
    assert seen[-1].type == "token"
    assert rest == ["error"]
    ran_out(error, "stall", watch, LIMIT / 2)


class Alarm:
    """What a clock rings."""

    def __init__(self) -> None:
        self.rang = threading.Event()

    def ring(self, now: float) -> None:
        """Note it."""
        self.rang.set()


@pytest.mark.parametrize("far", [math.inf, 1e300, threading.TIMEOUT_MAX])
def test_far_alarm_stops_no_other(far: float) -> None:
    """An alarm beyond what a lock can wait for leaves the reader alive."""
    reader, distant, near = Reader(), Alarm(), Alarm()
    loop = reader.start()
    loop.at(time.monotonic() + far, distant.ring)
    threading.Event().wait(EARLY)  # the thread sees it alone first
    loop.at(time.monotonic(), near.ring)

    assert near.rang.wait(SOON)
    assert not distant.rang.is_set()
    reader.stop(SOON)


def test_longest_clocks_stop_no_others(engine: FakeEngine) -> None:
    """A task with the longest timeouts and deadline leaves those of another one alone."""
    engine.script(Text("a"), Stall())
    engine.script(Text("a"), Stall())
    longest = Timeouts(queued=10**9, connect=10**9, first_token=10**9, stall=10**9, total=10**9)
    with VllmHttpAdapter(engine.url) as adapter:
        patient = adapter.submit(a_task(deadline_ms=10**12), timeouts=longest)
        assert [patient.get(timeout=SOON) is not None for _ in range(2)] == [True, True]
        with stopwatch() as watch:
            error, _ = failure(adapter.submit(a_task(), timeouts=Timeouts(stall=LIMIT)))

        ran_out(error, "stall", watch)
        assert not patient.done


def test_stopped_process_is_no_silence(engine: FakeEngine) -> None:
    """An alarm that is late by seconds (ctrl-Z, then fg) leaves time to read what has come."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, timeouts=Timeouts(first_token=60)) as adapter:
        stream = adapter.submit(a_task())
        posts(engine)
        woken = time.monotonic() + 65

        again = stream._run.ring(woken)

        assert again is not None
        assert woken < again < woken + SOON
        assert not stream.done
        assert stream._run.ring(again) is None
        assert kinds(stream) == ["error"]
