"""What the chat needs of whoever makes the answers."""

from __future__ import annotations

from typing import Protocol

from vllm_http import TaskRequest
from vllm_http.integrations.wsgi import EventSource


class Backend(Protocol):
    """Makes answers, and keeps them for a while: a page that is loaded again follows anew.

    Each method may raise a `WorkerError`.
    """

    def begin(self, task: TaskRequest) -> str:
        """Start an answer, which goes on whether or not somebody follows; its job's id."""

    def follow(self, job_id: str, after: str | None = None) -> EventSource:
        """An answer's events, all of them or those after one's id."""

    def cancel(self, job_id: str) -> None:
        """End an answer, and free the engine."""
