"""The task that the workers run; its tokens go through Redis to whoever follows the job."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from vllm_http import TaskRequest, VllmHttpAdapter
from vllm_http.integrations.celery import StreamingTask
from vllm_http.integrations.relay import Relay


REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("tasks", broker=REDIS)  # no result backend: the relay has all that a page needs
app.conf.broker_connection_retry_on_startup = True
adapter = VllmHttpAdapter(os.environ.get("VLLM_URL", "http://localhost:8000"))
relay = Relay(REDIS)


@app.task(base=StreamingTask, bind=True, adapter=adapter, relay=relay, soft_time_limit=300)
def generate(self: StreamingTask, task: dict[str, Any]) -> None:
    """Stream a `TaskRequest`, given as JSON-able values, to whoever follows the job."""
    with self.stream(TaskRequest.from_dict(task)) as stream:
        self.publish(stream)
