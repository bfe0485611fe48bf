"""The application that the servers run: a plain WSGI one, with one adapter made at import."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from vllm_http import TaskRequest, VllmHttpAdapter
from vllm_http.integrations.wsgi import plain_text, sse


adapter = VllmHttpAdapter(os.environ["VLLM_HTTP_TEST_ENGINE"])
MODEL = os.environ.get("VLLM_HTTP_TEST_MODEL", "fake-model")
TASKS = {
    # For a real engine: half a minute's work, which begins at once, or after a second of prefill.
    "/long": TaskRequest(prompt="Once", model=MODEL, max_tokens=1000, ignore_eos=True),
    "/prefill": TaskRequest(prompt="so " * 1000, model=MODEL, max_tokens=1000, ignore_eos=True),
}


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with one task's events, as text under /text."""
    path = environ["PATH_INFO"]
    task = TASKS.get(path) or TaskRequest(prompt="Say it", model=MODEL, max_tokens=5)
    stream = adapter.submit(task)
    body = plain_text(stream) if path == "/text" else sse(stream, heartbeat=0.1)
    start_response("200 OK", body.headers)
    return body
