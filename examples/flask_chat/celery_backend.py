"""The answers by Celery's workers and through Redis: any number of web processes and workers."""

from __future__ import annotations

from kombu.exceptions import OperationalError
from tasks import generate, relay

from vllm_http import EngineUnavailable, TaskRequest
from vllm_http.integrations.relay import Follower


class CeleryBackend:
    """A `Backend` whose jobs are Celery's tasks."""

    def begin(self, task: TaskRequest) -> str:
        """Put the task into the queue."""
        try:
            return str(generate.delay(task.to_dict()).id)
        except OperationalError as failure:
            raise EngineUnavailable("the workers' queue cannot be reached") from failure

    def follow(self, job_id: str, after: str | None = None) -> Follower:
        """Ids are the relay's."""
        return relay.follow(job_id, after=after)

    def cancel(self, job_id: str) -> None:
        """Have the worker end it; if none has begun it, none will."""
        relay.cancel(job_id)
