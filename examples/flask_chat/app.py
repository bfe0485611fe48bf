"""A chat that streams into the browser, with a stop button; README.md says how it is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from backend import Backend
from flask import Flask, Response, jsonify, request, send_file

from vllm_http import Completion, InvalidRequest, TaskRequest, WorkerError
from vllm_http.integrations.wsgi import plain_text, sse, status_of


def choose_backend() -> Backend:
    """Celery and Redis where there is a Redis, else this process alone."""
    if "REDIS_URL" in os.environ:
        from celery_backend import CeleryBackend

        return CeleryBackend()
    from memory_backend import MemoryBackend

    return MemoryBackend()


application = Flask(__name__)
backend = choose_backend()


@application.get("/")
def page() -> Response:
    """The one page."""
    return send_file(Path(__file__).with_name("chat.html"))


@application.post("/answers")
def ask() -> Response:
    """Begin the answer to `question`; `turns` are the earlier questions with their answers' ids."""
    asked = request.get_json()
    messages = []
    for turn in asked["turns"]:
        message = message_of(turn["answer"])
        if message is not None:
            messages += [{"role": "user", "content": turn["question"]}, message]
    messages.append({"role": "user", "content": asked["question"]})
    return jsonify(answer=backend.begin(TaskRequest(messages=messages, max_tokens=400)))


@application.get("/answers/<job_id>")
def answer(job_id: str) -> Response:
    """An answer's events, from the beginning or from where the browser was cut off."""
    last_id = request.headers.get("Last-Event-ID")
    body = sse(backend.follow(job_id, last_id))
    try:
        body.begin(timeout=0)
    except WorkerError as error:
        if isinstance(error, InvalidRequest) and error.status is None:
            raise  # what can't be followed gets a status
        body = sse(backend.follow(job_id, last_id))  # a task's own failure is an event
    return Response(body, headers=body.headers)


@application.post("/answers/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """End an answer: the engine is freed, and who follows is told."""
    backend.cancel(job_id)
    return Response(status=204)


@application.errorhandler(WorkerError)
def refused(error: WorkerError) -> Response:
    """A failure that comes before the stream has begun; later ones are events in it."""
    status, headers = status_of(error)
    return Response(error.message, status, headers, mimetype="text/plain")


def message_of(job_id: str) -> dict[str, Any] | None:
    """What the model said in an earlier turn, once it is complete; None if that failed."""
    try:
        text = b"".join(plain_text(backend.follow(job_id))).decode()
    except WorkerError:
        return None
    return Completion(job_id, text).message()


if __name__ == "__main__":
    application.run(port=int(os.environ.get("PORT", "5000")), threaded=True)
