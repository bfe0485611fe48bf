"""The application that the servers run: a plain WSGI one, with one adapter made at import."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from vllm_http import TaskRequest, VllmHttpAdapter
from vllm_http.integrations.wsgi import plain_text, sse


adapter = VllmHttpAdapter(os.environ["VLLM_HTTP_TEST_ENGINE"])


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with one task's events, as text under /text."""
    stream = adapter.submit(TaskRequest(prompt="Say it", model="fake-model", max_tokens=5))
    text = environ["PATH_INFO"] == "/text"
    body = plain_text(stream) if text else sse(stream, heartbeat=0.1)
    start_response("200 OK", body.headers)
    return body
