"""The application that the tests' workers run; where things are comes from the environment."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from vllm_http import TaskRequest, VllmHttpAdapter
from vllm_http.integrations.celery import StreamingTask
from vllm_http.integrations.relay import Relay


app = Celery("worker_app", broker=os.environ["BROKER"], backend=os.environ["REDIS"])
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
app.conf.accept_content = ["json", "msgpack", "yaml"]
app.conf.worker_max_tasks_per_child = int(os.environ.get("TASKS_PER_CHILD", 0)) or None

adapter = VllmHttpAdapter(os.environ["ENGINE"])
relay = Relay(os.environ["REDIS"], lease=2)
options: dict[str, Any] = {
    "base": StreamingTask,
    "bind": True,
    "adapter": adapter,
    "relay": relay,
    "retry_cap": 1.0,
}


@app.task(name="generate", **options)  # type: ignore[untyped-decorator]
def generate(self: StreamingTask, task: dict[str, Any]) -> dict[str, Any]:
    """Stream to followers, and store the whole."""
    with self.stream(TaskRequest.from_dict(task)) as stream:
        return self.publish(stream).to_dict()


@app.task(name="collect", **options)  # type: ignore[untyped-decorator]
def collect(self: StreamingTask, task: dict[str, Any]) -> dict[str, Any]:
    """Only store the whole."""
    with self.stream(TaskRequest.from_dict(task)) as stream:
        return stream.result().to_dict()


@app.task(name="careless", **options)  # type: ignore[untyped-decorator]
def careless(self: StreamingTask, task: dict[str, Any]) -> dict[str, Any]:
    """Take no heed of time limits."""
    request = TaskRequest.from_dict({**task, "job_id": self.request.id})
    return relay.publish(adapter.submit(request)).to_dict()


@app.task(name="texts")  # type: ignore[untyped-decorator]
def texts(results: Any) -> Any:
    """What one completion says, or several."""
    if isinstance(results, dict):
        return results["text"]
    return sorted(result["text"] for result in results)
