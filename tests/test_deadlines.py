"""The clock over all: `Timeouts.total` and `TaskRequest.deadline_ms`."""

from __future__ import annotations

import pickle

import pytest
import support
from support import (
    LIMIT,
    SOON,
    a_task,
    failure,
    posts,
    ran_out,
    sent,
    stopwatch,
    wait_until,
)

from vllm_http import (
    EngineUnavailable,
    RetryPolicy,
    Timeout,
    Timeouts,
    VllmHttpAdapter,
)
from vllm_http.testing import FakeEngine, Headers, Stall, Status, Step, Text


engine, adapter, deaf = support.engine, support.adapter, support.deaf

LONG = RetryPolicy(base=10_000, cap=10_000)  # A backoff that outlasts any test.


@pytest.mark.parametrize("steps", [[Stall()], [Headers(), Stall()], [Text("a"), Stall()]])
@pytest.mark.parametrize("way", ["total", "deadline_ms"])
def test_deadline(
    engine: FakeEngine, adapter: VllmHttpAdapter, steps: list[Step], way: str
) -> None:
    """A task is over when its time is up, in whatever phase, and has no hope of more."""
    engine.script(*steps)
    task = a_task(deadline_ms=int(LIMIT * 1000) if way == "deadline_ms" else None)
    timeouts = Timeouts(total=LIMIT) if way == "total" else None

    with stopwatch() as watch:
        error, _ = failure(adapter.submit(task, timeouts=timeouts))

    ran_out(error, "deadline", watch)
    assert not error.retriable
    assert posts(engine)[0].hung_up.wait(SOON)
    assert sent(engine) == 1


@pytest.mark.parametrize(("total", "deadline_ms"), [(LIMIT, 60_000), (60, int(LIMIT * 1000))])
def test_the_shorter_one_counts(
    engine: FakeEngine, adapter: VllmHttpAdapter, total: float, deadline_ms: int
) -> None:
    """With both given, the earlier deadline strikes."""
    engine.script(Stall())
    task = a_task(deadline_ms=deadline_ms)

    with stopwatch() as watch:
        error, _ = failure(adapter.submit(task, timeouts=Timeouts(total=total)))

    ran_out(error, "deadline", watch)


def test_steady_tokens_do_not_help() -> None:
    """A stream in full flow ends at its deadline too, with its tokens."""
    with FakeEngine(token_delay=0.02) as engine, VllmHttpAdapter(engine.url) as adapter:
        with stopwatch() as watch:
            error, seen = failure(adapter.submit(a_task(max_tokens=1000, deadline_ms=300)))
        assert posts(engine)[0].hung_up.wait(SOON)

    ran_out(error, "deadline", watch)
    assert seen[:2] == ["started", "token"]


def test_waiting_for_a_worker_counts(engine: FakeEngine) -> None:
    """The deadline counts from submit, so it strikes a task that waits its turn."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        with adapter.submit(a_task()):
            posts(engine)
            with stopwatch() as watch:
                error, seen = failure(adapter.submit(a_task(deadline_ms=300)))
        engine.wait_idle()

    ran_out(error, "deadline", watch)
    assert seen == ["error"]
    assert sent(engine) == 1


def test_deadline_while_nobody_takes(engine: FakeEngine) -> None:
    """A deadline strikes behind a full queue as well; it is the caller's own limit."""
    engine.script(*[Text("a" * 500_000)] * 20, Stall())
    with VllmHttpAdapter(engine.url, queue_size=1) as adapter:
        stream = adapter.submit(a_task(deadline_ms=300))
        wait_until(lambda: stream.done)
        error, _ = failure(stream)
        assert posts(engine)[0].hung_up.wait(SOON)

    assert isinstance(error, Timeout)
    assert error.phase == "deadline"


def test_deadline_in_a_connect(deaf: str) -> None:
    """A deadline does not wait for a connect to come back."""
    with VllmHttpAdapter(deaf, timeouts=Timeouts(connect=4.0)) as adapter, stopwatch() as watch:
        error, _ = failure(adapter.submit(a_task(deadline_ms=300)))

    ran_out(error, "deadline", watch)
    assert watch.seconds < 3.5


def test_deadline_in_a_backoff(engine: FakeEngine) -> None:
    """A deadline wakes a backoff, and the failure that led there is the cause."""
    engine.script(Status(503, {"error": {"message": "overloaded", "code": 503}}))
    with VllmHttpAdapter(engine.url, retry=LONG) as adapter, stopwatch() as watch:
        error, _ = failure(adapter.submit(a_task(deadline_ms=300)))

    ran_out(error, "deadline", watch)
    assert isinstance(error.__cause__, EngineUnavailable)
    assert error.__cause__.status == 503


def test_deadline_in_a_later_attempt(engine: FakeEngine) -> None:
    """A deadline in the second attempt still tells why there was one."""
    engine.script(Status(503))
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, retry=support.QUICKLY) as adapter, stopwatch() as watch:
        error, _ = failure(adapter.submit(a_task(deadline_ms=300)))

    ran_out(error, "deadline", watch)
    assert isinstance(error.__cause__, EngineUnavailable)
    assert sent(engine) == 2


def test_deadline_in_the_first_attempt_has_no_cause(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """Without an earlier failure there is none to tell of."""
    engine.script(Stall())

    error, _ = failure(adapter.submit(a_task(deadline_ms=200)))

    assert error.__cause__ is None


def test_tasks_own_timeouts_replace_the_adapters(engine: FakeEngine) -> None:
    """`submit(timeouts=...)` counts instead of the adapter's, as a whole."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, timeouts=Timeouts(total=0.1)) as adapter, stopwatch() as watch:
        error, _ = failure(adapter.submit(a_task(), timeouts=Timeouts(first_token=LIMIT)))

    ran_out(error, "first_token", watch)


def test_timeout_survives_pickling(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A Timeout keeps its phase through pickle, and tells it in its dict."""
    engine.script(Stall())
    stream = adapter.submit(a_task(deadline_ms=100))

    error, _ = failure(stream)
    copy = pickle.loads(pickle.dumps(error))

    assert isinstance(copy, Timeout)
    assert not isinstance(copy, TimeoutError)
    assert (copy.phase, copy.job_id, copy.retriable) == ("deadline", stream.job_id, False)
    assert copy.to_dict()["phase"] == "deadline"
