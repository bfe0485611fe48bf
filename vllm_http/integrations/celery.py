"""Celery tasks that stream from vLLM: `StreamingTask`, a base class.

Needs ``pip install vllm-http[celery]``; `Relay`, which takes the tokens out of the worker, needs
``vllm-http[redis]``. `docs/celery.md` has a whole example, and says what each pool can do.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Ignore, ImproperlyConfigured
from celery.signals import task_revoked, worker_init

from vllm_http import (
    Completion,
    InvalidRequest,
    TaskRequest,
    TokenStream,
    WorkerAdapter,
    WorkerError,
)


if TYPE_CHECKING:
    from .relay import Relay

__all__ = ["StreamingTask"]

logger = logging.getLogger("vllm_http")

_DOUBLINGS = 1000
"""A float ends at 2**1024, and ``max_retries=None`` does not."""

_VISIBILITY = {"redis": 3600.0, "sqs": 1800.0}
"""Seconds after which these transports deliver a task again that is not acknowledged, unless
``broker_transport_options`` say otherwise; a task that waits for its retry is not."""


class StreamingTask(Task):  # type: ignore[misc]
    """The base of a task that streams: ``@app.task(base=StreamingTask, bind=True, adapter=...)``.

    A `WorkerError` that leaves the task is tried again by Celery if it is ``retriable``: after what
    the engine asked for (``retry_after_ms``) and a random time between half and the whole of
    ``retry_base * 2**retries`` seconds, at most ``retry_cap``; ``max_retries`` is Celery's own.
    An engine that asks for more than ``max_retry_after`` fails it, and so do the other errors.
    Messages are acknowledged late, so a task whose worker dies is delivered again; each of these is
    an option like any other.

    Attributes:
        adapter: The engine. One for a process is enough, made at import: it has no thread before
            its first use, and may be forked.
        relay: Takes the events to who waits; None if nobody does.
        retry_base: Seconds.
        retry_cap: Seconds.
        max_retry_after: Seconds that the engine may ask to wait. Below the broker's visibility
            timeout (Redis: an hour): a message that waits for longer is delivered twice.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    throws = (WorkerError,)  # logged in one line: it is the engine's failure, not a bug in the task

    adapter: WorkerAdapter | None = None
    relay: Relay | None = None
    retry_base: float = 1.0
    retry_cap: float = 60.0
    max_retry_after: float = 600.0

    def stream(self, task: TaskRequest) -> TokenStream:
        """Submit a task under Celery's task id, with a deadline just before Celery's time limits.

        Leave the stream's ``with`` block, by `SoftTimeLimitExceeded` or otherwise, and the engine
        is free.

        Raises:
            InvalidRequest: The task is out of its limits.
            CapacityExceeded: The adapter is full; it is tried again.
            Ignore: This process runs the same task already: it was delivered twice.
        """
        if self.adapter is None:
            raise ImproperlyConfigured(f"{self.name}: the option adapter is missing")
        job_id = self.request.id or task.job_id  # no id: called as a plain function
        bounded = replace(task, job_id=job_id, deadline_ms=self._deadline_ms(task.deadline_ms))
        try:
            return self.adapter.submit(bounded)
        except InvalidRequest as refusal:
            if refusal.job_id is None:
                raise
            raise Ignore(f"job {job_id} is live in this process") from refusal

    def publish(self, stream: TokenStream) -> Completion:
        """`Relay.publish`, and followers are not told of a failure that is to be tried again.

        Raises:
            WorkerError: The stream failed, or Redis did.
            Ignore: Another worker runs this task now; its result counts.
        """
        from .relay import Superseded

        if self.relay is None:
            raise ImproperlyConfigured(f"{self.name}: the option relay is missing")
        try:
            return self.relay.publish(stream, retry_in=self._retry_in)
        except Superseded as superseded:
            raise Ignore(str(superseded)) from superseded

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; retry it where that has hope."""
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        self.request.vllm_began = time.monotonic()
        try:
            return self.run(*args, **kwargs)
        except WorkerError as error:
            error.args = (error.message, error.to_dict())  # what a result backend keeps
            countdown = self._retry_in(error)
            if countdown is None:
                raise
            raise self.retry(exc=error, countdown=countdown) from error

    def _retry_in(self, error: WorkerError) -> float | None:
        """Seconds until Celery tries again; None if it does not. Asked again, it says the same."""
        request = self.request
        used_up = self.max_retries is not None and request.retries >= self.max_retries
        wanted = (error.retry_after_ms or 0) / 1000
        too_long = wanted > self.max_retry_after
        if request.called_directly or not error.retriable or used_up or too_long:
            return None
        if getattr(request, "vllm_countdown", None) is None:
            # Those who were refused together shall not come back together; nor any at once, since
            # Celery stores the state RETRY after it has sent the message: over a quick result.
            bound = self._backoff(request.retries)
            request.vllm_countdown = wanted + random.uniform(bound / 2, bound)
        countdown: float = request.vllm_countdown
        return countdown

    def _backoff(self, retries: int) -> float:
        """The longest random wait before the next retry, in seconds."""
        doubled: float = 2.0 ** min(retries, _DOUBLINGS)
        return min(self.retry_cap, self.retry_base * doubled)

    def _deadline_ms(self, own: int | None) -> int | None:
        """The task's own deadline or what Celery's limits leave, whichever is less."""
        limits = [limit for limit in self._time_limits() if limit]
        if not limits:
            return own
        limit = min(limits)
        left = limit - _margin(limit) - (time.monotonic() - self._began())
        ours = max(1, int(left * 1000))
        return ours if own is None else min(own, ours)

    def _time_limits(self) -> tuple[float | None, float | None]:
        """The message's, else the task's, else the application's, as the worker takes them."""
        hard, soft = self.request.timelimit or (None, None)
        conf = self.app.conf  # Celery 5.3 does not hand its limits on to its tasks
        return (
            hard or self.time_limit or conf.task_time_limit,
            soft or self.soft_time_limit or conf.task_soft_time_limit,
        )

    def _began(self) -> float:
        began: float = getattr(self.request, "vllm_began", None) or time.monotonic()
        return began


def _margin(limit: float) -> float:
    """Seconds before a limit for the last events and the task's own work after them."""
    return min(2.0, limit / 10)


def _cancel_revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    """Tell followers of a task that was revoked; in the worker's main process, which must go on."""
    relay = getattr(sender, "relay", None)
    if not isinstance(sender, StreamingTask) or relay is None:
        return
    try:
        relay.cancel(request.id)
    except WorkerError as error:
        logger.warning("task %s: followers do not know that it is revoked: %s", request.id, error)


def _warn_of_visibility(sender: Any = None, **_: Any) -> None:
    """Tell, when a worker starts, of tasks whose retries the broker would deliver twice."""
    app = sender.app
    transport = app.connection_for_read().transport.driver_type
    options = app.conf.broker_transport_options or {}
    visible = options.get("visibility_timeout", _VISIBILITY.get(transport))
    if transport not in _VISIBILITY or visible is None:
        return
    for task in app.tasks.values():
        if isinstance(task, StreamingTask) and task.retry_cap >= visible:
            logger.warning(
                "task %s: retry_cap is %g s, but the broker delivers a task again after %g s "
                "(visibility_timeout): a retry that waits so long is done more than once",
                task.name,
                task.retry_cap,
                visible,
            )


task_revoked.connect(_cancel_revoked)
worker_init.connect(_warn_of_visibility)
