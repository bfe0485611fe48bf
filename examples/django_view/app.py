"""A Django view that streams, in one file.

    python examples/django_view/app.py
    curl --no-buffer 'http://127.0.0.1:8080/say?text=Hello'

or, under gunicorn:

    gunicorn --chdir examples/django_view --threads 8 --bind 127.0.0.1:8080 app:application

It asks the vLLM at VLLM_URL, or an embedded engine whose words mean nothing; the first command
takes another port from PORT.
"""

from __future__ import annotations

import os
import secrets
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_GET

from vllm_http import TaskRequest, VllmHttpAdapter, WorkerError
from vllm_http.integrations.wsgi import sse, status_of


settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
)


def engine_url() -> str:
    """Where the engine is; start one in this process if nobody says."""
    if url := os.environ.get("VLLM_URL"):
        return url
    from vllm_http.testing import FakeEngine

    print("no VLLM_URL: an embedded engine answers, its words mean nothing", file=sys.stderr)
    engine = FakeEngine(token_delay=0.05)
    engine.start()
    return engine.url


adapter = VllmHttpAdapter(engine_url())


@require_GET
def say(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Answer `text` with server-sent events; a task that is refused has a status of its own."""
    message = {"role": "user", "content": request.GET.get("text", "Tell me a tale.")}
    try:
        body = sse(adapter.submit(TaskRequest(messages=[message], max_tokens=100)))
        body.begin(timeout=2)
    except WorkerError as error:
        status, headers = status_of(error)
        return HttpResponse(
            error.message, status=status, headers=dict(headers), content_type="text/plain"
        )
    return StreamingHttpResponse(body, headers=dict(body.headers))


urlpatterns = [path("say", say)]

application = get_wsgi_application()

if __name__ == "__main__":
    address = f"127.0.0.1:{os.environ.get('PORT', '8080')}"
    execute_from_command_line([sys.argv[0], "runserver", "--noreload", address])
