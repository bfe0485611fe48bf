"""The task that the workers run: one prompt to its whole answer."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from vllm_http import TaskRequest, VllmHttpAdapter
from vllm_http.integrations.celery import StreamingTask


REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("tasks", broker=REDIS, backend=REDIS)
app.conf.broker_connection_retry_on_startup = True
adapter = VllmHttpAdapter(os.environ.get("VLLM_URL", "http://localhost:8000"))


@app.task(base=StreamingTask, bind=True, adapter=adapter, soft_time_limit=300)
def generate(self: StreamingTask, task: dict[str, Any]) -> dict[str, Any]:
    """A `TaskRequest` to a `Completion`, both as JSON-able values."""
    with self.stream(TaskRequest.from_dict(task)) as stream:
        return stream.result().to_dict()
