"""How long the wait before another attempt is."""

from __future__ import annotations

import pytest
import support
from support import SOON, a_task, answer, failure, sent, stopwatch

from vllm_http import CapacityExceeded, EngineUnavailable, RetryPolicy, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Status


engine, adapter = support.engine, support.adapter

PATIENT = RetryPolicy(attempts=2, base=0.001, cap=0.001, max_retry_after=1.5)


def test_retry_after_is_obeyed(engine: FakeEngine) -> None:
    """An engine that asks for a second gets it."""
    engine.script(Status(429, headers={"retry-after": "1"}))
    engine.script(*answer("a"))

    with VllmHttpAdapter(engine.url, retry=PATIENT) as adapter, stopwatch() as watch:
        completion = adapter.submit(a_task()).result()

    assert completion.text == "a"
    assert 1 <= watch.seconds < 1 + SOON


@pytest.mark.parametrize(("status", "kind"), [(429, CapacityExceeded), (503, EngineUnavailable)])
def test_too_long_a_retry_after_fails_at_once(
    engine: FakeEngine, status: int, kind: type[Exception]
) -> None:
    """An engine that asks for more than max_retry_after ends the task with its own refusal."""
    engine.script(Status(status, headers={"retry-after": "20"}))

    with VllmHttpAdapter(engine.url, retry=PATIENT) as adapter, stopwatch() as watch:
        error, _ = failure(adapter.submit(a_task()))

    assert type(error) is kind
    assert (error.status, error.retry_after_ms, error.retriable) == (status, 20_000, True)
    assert sent(engine) == 1
    assert watch.seconds < SOON


def test_retry_after_beyond_the_deadline_fails_at_once(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """A wait that would outlast the deadline is not begun."""
    engine.script(Status(429, headers={"retry-after": "20"}))

    with stopwatch() as watch:
        error, _ = failure(adapter.submit(a_task(deadline_ms=10_000)))

    assert isinstance(error, CapacityExceeded)
    assert error.retry_after_ms == 20_000
    assert watch.seconds < SOON


def test_last_refusal_tells_its_retry_after(engine: FakeEngine) -> None:
    """When all attempts are used up, the error still says how long to wait."""
    engine.script(Status(503, headers={"retry-after": "7"}))

    with VllmHttpAdapter(engine.url, retry=support.ONCE) as adapter:
        error, _ = failure(adapter.submit(a_task()))

    assert error.retry_after_ms == 7000


@pytest.mark.parametrize("value", ["soon", "-1", "", "nan", "1e999"])
def test_senseless_retry_after_is_ignored(engine: FakeEngine, value: str) -> None:
    """A Retry-After that is no number of seconds changes nothing."""
    engine.script(Status(429, headers={"retry-after": value}))
    engine.script(*answer("a"))

    with VllmHttpAdapter(engine.url, retry=PATIENT) as adapter, stopwatch() as watch:
        assert adapter.submit(a_task()).result(timeout=SOON).text == "a"

    assert watch.seconds < SOON


def test_wait_is_bounded_by_its_cap() -> None:
    """The bound doubles with each failure, up to the cap."""
    policy = RetryPolicy(base=0.2, cap=2.0)

    assert [policy.bound(n) for n in (1, 2, 3, 4, 5, 60)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert policy.bound(100_000) == 2.0


def test_backoff_is_short_by_default(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Four attempts of the default policy wait 1.4 seconds at most."""
    for _ in range(4):
        engine.script(Status(503))

    with stopwatch() as watch:
        failure(adapter.submit(a_task()))

    assert sent(engine) == 4
    assert watch.seconds < 1.4 + SOON
