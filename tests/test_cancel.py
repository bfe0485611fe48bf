"""A task ends when it is told to, whatever it is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import support
from support import SOON, a_task, answer, kinds, posts, stopwatch, wait_until

from vllm_http import End, RetryPolicy, Started, Timeouts, Token, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Headers, Stall, Status, Step, Text, Tokens


engine, adapter, deaf = support.engine, support.adapter, support.deaf

worst: dict[str, float] = {}  # Seconds from cancel() to the end of the iteration, by phase.


@pytest.fixture(scope="module", autouse=True)
def _report() -> Iterator[None]:
    """Print the slowest end for each phase (seen with -s)."""
    yield
    for phase, seconds in worst.items():
        print(f"\n{phase}: {seconds * 1000:.1f} ms", end="")


def played(engine: FakeEngine, *steps: Step) -> VllmHttpAdapter:
    """An adapter, and an engine that plays these steps for its next task."""
    engine.script(*steps)
    return VllmHttpAdapter(engine.url, queue_size=2, retry=RetryPolicy(max_retry_after=60))


@contextmanager
def queued(engine: FakeEngine) -> Iterator[TokenStream]:
    """A task that waits for a worker."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter, adapter.submit(a_task()):
        posts(engine)
        yield adapter.submit(a_task())


@contextmanager
def waiting_for_headers(engine: FakeEngine) -> Iterator[TokenStream]:
    """A task whose request has arrived and got no answer."""
    with played(engine, Stall()) as adapter:
        stream = adapter.submit(a_task())
        posts(engine)
        yield stream


@contextmanager
def waiting_for_a_token(engine: FakeEngine) -> Iterator[TokenStream]:
    """A task that the engine has accepted and queued."""
    with played(engine, Headers(), Stall()) as adapter:
        stream = adapter.submit(a_task())
        assert isinstance(stream.get(timeout=SOON), Started)
        yield stream


@contextmanager
def mid_stream(engine: FakeEngine) -> Iterator[TokenStream]:
    """A task that has had tokens and waits for more."""
    with played(engine, Tokens(2), Stall()) as adapter:
        stream = adapter.submit(a_task())
        assert kinds(next(stream) for _ in range(3)) == ["started", "token", "token"]
        yield stream


@contextmanager
def full_queue(engine: FakeEngine) -> Iterator[TokenStream]:
    """A task whose caller takes nothing."""
    with played(engine, *[Text("x" * 500_000)] * 20, Stall()) as adapter:
        stream = adapter.submit(a_task())
        wait_until(lambda: stream.receiver.qsize() >= 2)
        yield stream


@contextmanager
def backoff(engine: FakeEngine) -> Iterator[TokenStream]:
    """A task that waits for its second attempt."""
    with played(engine, Status(503, headers={"retry-after": "50"})) as adapter:
        stream = adapter.submit(a_task())
        posts(engine)[0].finished.wait(SOON)
        yield stream


Phase = Callable[[FakeEngine], AbstractContextManager[TokenStream]]
PHASES: list[Phase] = [
    queued,
    waiting_for_headers,
    waiting_for_a_token,
    mid_stream,
    full_queue,
    backoff,
]
AT_THE_ENGINE = [waiting_for_headers, waiting_for_a_token, mid_stream, full_queue]


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_every_phase(engine: FakeEngine, phase: Phase) -> None:
    """Tokens that waited are dropped, and an End that says "cancelled" comes at once."""
    with phase(engine) as stream:
        with stopwatch() as watch:
            stream.cancel()
            events = list(stream)
        requests = len(posts(engine, 1))

    *untaken, end = events
    assert kinds(untaken) in ([], ["started"])
    assert isinstance(end, End)
    assert end.finish_reason == "cancelled"
    assert requests == 1
    assert watch.seconds < SOON
    worst[phase.__name__] = watch.seconds


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_wakes_a_blocked_caller(engine: FakeEngine, phase: Phase) -> None:
    """A cancel from another thread ends the iteration of a caller who waits."""
    with phase(engine) as stream:
        taken: list[str] = []
        caller = threading.Thread(target=lambda: taken.extend(kinds(stream)))
        caller.start()
        stream.cancel()
        caller.join(SOON)
        alive = caller.is_alive()

    assert not alive
    assert taken[-1] == "end"
    assert "error" not in taken


@pytest.mark.parametrize("phase", AT_THE_ENGINE)
def test_engine_sees_the_hang_up(engine: FakeEngine, phase: Phase) -> None:
    """A cancel reaches the engine while the caller still holds the stream."""
    with phase(engine) as stream:
        stream.cancel()

        assert posts(engine)[0].hung_up.wait(SOON)


@pytest.mark.parametrize("phase", PHASES)
def test_close_in_every_phase(engine: FakeEngine, phase: Phase) -> None:
    """After close() by its owner there are no events, not even an End."""
    with phase(engine) as stream, stopwatch() as watch:
        stream.close()
        events = list(stream)

    assert events == []
    assert watch.seconds < SOON


def test_cancel_while_connecting(deaf: str) -> None:
    """A cancel does not wait for a connect."""
    with VllmHttpAdapter(deaf, timeouts=Timeouts(connect=1)) as adapter:
        stream = adapter.submit(a_task())
        with stopwatch() as watch:
            stream.cancel()
            events = list(stream)

    assert kinds(events) == ["end"]
    assert watch.seconds < 0.9


def test_cancel_while_draining(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A cancel between [DONE] and the end of the body changes nothing that was said."""
    engine.script(*answer("a"), Stall())
    stream = adapter.submit(a_task())
    events = [next(stream), next(stream)]

    stream.cancel()
    events.extend(stream)

    assert kinds(events) == ["started", "token", "end"]


def test_cancel_frees_the_place(engine: FakeEngine) -> None:
    """A waiting task that is cancelled leaves room for the next, and never reaches the engine."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=1) as adapter:
        running, waiting = adapter.submit(a_task()), adapter.submit(a_task(prompt="never"))
        waiting.cancel()
        third = adapter.submit(a_task(prompt="third"))
        posts(engine)
        running.cancel()

        assert third.result(timeout=SOON).error is None
    assert [post.json["prompt"] for post in posts(engine, 2)] == ["Say it", "third"]


def test_cancel_by_id(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """`adapter.cancel` ends the task with this id and no other."""
    engine.script(Headers(), Stall())
    stream = adapter.submit(a_task(job_id="one"))
    posts(engine)
    other = adapter.submit(a_task(job_id="two"))

    adapter.cancel("one")

    assert kinds(stream)[-1:] == ["end"]
    assert other.result(timeout=SOON).finish_reason == "length"


def test_cancel_of_nothing(adapter: VllmHttpAdapter) -> None:
    """An unknown id, a finished one and a second cancel are no errors and have no effect."""
    stream = adapter.submit(a_task(max_tokens=1, job_id="mine"))
    wait_until(lambda: stream.done)

    adapter.cancel("unknown")
    events = list(stream)
    adapter.cancel("mine")
    stream.cancel()

    assert kinds(events) == ["started", "token", "end"]
    assert list(stream) == []


@pytest.mark.parametrize("by_id", [False, True], ids=["stream", "id"])
def test_cancel_after_the_workers_end(adapter: VllmHttpAdapter, by_id: bool) -> None:
    """What was not taken of a whole answer is dropped, and its End is the engine's own."""
    stream = adapter.submit(a_task(max_tokens=50))
    wait_until(lambda: stream.done)
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    adapter.cancel(stream.job_id) if by_id else stream.cancel()

    (end,) = stream
    assert isinstance(end, End)
    assert end.finish_reason == "length"


def test_cancel_twice(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The second cancel adds nothing."""
    engine.script(Tokens(1), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    stream.cancel()
    stream.cancel()
    adapter.cancel(stream.job_id)

    assert kinds(stream) == ["end"]
    assert stream.get(timeout=0) is None


def test_result_and_text_of_a_cancelled_task(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A cancel is no error: text() stops, and result() says how it finished."""
    engine.script(Text("a"), Stall())
    stream = adapter.submit(a_task())
    pieces = stream.text()
    assert next(pieces) == "a"

    stream.cancel()

    assert list(pieces) == []
    assert stream.result(timeout=SOON).finish_reason == "cancelled"


def late_tokens(adapter: VllmHttpAdapter, stream: TokenStream, cancel_at: int) -> int:
    """Drain a stream, have it cancelled on the way, and count the tokens after that."""
    returned = threading.Event()

    def cancel() -> None:
        adapter.cancel(stream.job_id)
        returned.set()

    canceller = threading.Thread(target=cancel)
    late = number = 0
    before = False
    while (event := stream.get(timeout=SOON)) is not None:
        late += before and isinstance(event, Token)
        if number == cancel_at:
            canceller.start()
        number += 1
        before = returned.is_set()
    canceller.join(SOON)
    return late


def test_no_token_after_a_cancel() -> None:
    """Once cancel() has returned, no Token comes out, however full the flow."""
    with FakeEngine() as engine, VllmHttpAdapter(engine.url) as adapter:
        for n in range(40):
            stream = adapter.submit(a_task(max_tokens=2000))

            assert late_tokens(adapter, stream, cancel_at=5 * n) == 0
