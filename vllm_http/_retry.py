"""What is tried again, and after which wait: one decision for tasks and for small calls.

tenacity counts the attempts and waits between them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ._errors import EngineUnavailable, StreamingError, Timeout, WorkerError
from ._settings import RetryPolicy


T = TypeVar("T")


class Retried(Protocol):
    """What is tried, as far as its retries go.

    Attributes:
        last_failure: Kept here for whoever has to tell why there is no time left.
        had_500: Whether an attempt has met a 500 already.
    """

    last_failure: WorkerError | None
    had_500: bool

    @property
    def over(self) -> bool:
        """Whether it was ended meanwhile."""
        ...

    @property
    def time_left(self) -> float:
        """Seconds to its deadline; infinite without one."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt. An end wakes it, and is raised."""
        ...


def try_again(
    retried: Retried, policy: RetryPolicy, attempt: Callable[[], T], failures: list[WorkerError]
) -> T:
    """Go on after a first failure, which is tenacity's first attempt.

    It is not asked before: its bookkeeping took a tenth of the time to the first token.

    Args:
        retried: What is tried.
        policy: How often and how soon.
        attempt: The next attempt; the old one must have let go of its connection.
        failures: The first failure alone. It is taken out: an error that a frame of its own
            traceback holds would live on in a cycle.

    Raises:
        WorkerError: The last failure.
    """

    def again() -> T:
        if failures:
            raise failures.pop()
        return attempt()

    retrying = Retrying(
        stop=stop_after_attempt(policy.attempts),
        wait=lambda state: _backoff(policy, state),
        retry=retry_if_exception(lambda failure: _may_retry(retried, policy, failure)),
        sleep=retried.pause,
        reraise=True,
    )
    return retrying(again)


def _backoff(policy: RetryPolicy, state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome is not None else None
    jitter = random.uniform(0.0, policy.bound(state.attempt_number))
    asked = failure.retry_after_ms if isinstance(failure, WorkerError) else None
    return max(jitter, (asked or 0) / 1000)


def _may_retry(retried: Retried, policy: RetryPolicy, failure: BaseException) -> bool:
    if retried.over or not isinstance(failure, WorkerError):
        return False
    # 500 is ambiguous (vLLM 0.32: engine dead, shutting down, or a passing failure): once more.
    second_500 = failure.status == 500 and retried.had_500
    retried.had_500 = retried.had_500 or failure.status == 500
    retried.last_failure = failure
    wait = (failure.retry_after_ms or 0) / 1000
    if wait > min(policy.max_retry_after, retried.time_left):
        return False
    if failure.status is not None:
        return failure.status in (429, 500, 502, 503, 504) and not second_500
    if isinstance(failure, Timeout):
        return failure.phase == "connect"
    if isinstance(failure, EngineUnavailable):
        return failure.retriable
    return isinstance(failure, StreamingError)
