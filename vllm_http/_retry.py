"""Trying again, for tasks and for small calls: the table of failures says what, this how.

tenacity counts the attempts and waits between them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ._errors import WorkerError
from ._failures import Failure, row_of
from ._settings import RetryPolicy


T = TypeVar("T")


class Retried(Protocol):
    """What is tried, as far as its retries go.

    Attributes:
        last_failure: Kept here for whoever has to tell why there is no time left.
    """

    last_failure: WorkerError | None

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

    met: Counter[Failure] = Counter()
    retrying = Retrying(
        stop=stop_after_attempt(policy.attempts),
        wait=lambda state: _backoff(policy, state),
        retry=retry_if_exception(lambda failure: _may_retry(retried, policy, met, failure)),
        sleep=retried.pause,
        reraise=True,
    )
    return retrying(again)


def _backoff(policy: RetryPolicy, state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome is not None else None
    jitter = random.uniform(0.0, policy.bound(state.attempt_number))
    asked = failure.retry_after_ms if isinstance(failure, WorkerError) else None
    return max(jitter, (asked or 0) / 1000)


def _may_retry(
    retried: Retried, policy: RetryPolicy, met: Counter[Failure], failure: BaseException
) -> bool:
    """Whether there is another attempt after this failure; `met` counts them by their rows."""
    if retried.over or not isinstance(failure, WorkerError):
        return False
    retried.last_failure = failure
    row = row_of(failure)
    met[row] += 1
    wait = (failure.retry_after_ms or 0) / 1000
    return met[row] <= row.again and wait <= min(policy.max_retry_after, retried.time_left)
