"""httpx with httpx-sse, as its README shows."""

from __future__ import annotations

import json

import httpx
from httpx_sse import connect_sse

from .base import Job, Threaded


class HttpxSse(Threaded):
    """One client for all threads."""

    def __init__(self, url: str, streams: int) -> None:
        self._url = f"{url}/v1/completions"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=streams)
        self._client = httpx.Client(limits=limits, timeout=600)

    def drain(self, job: Job) -> None:
        """Iterate over the events."""
        with connect_sse(self._client, "POST", self._url, json=job.body()) as source:
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    continue
                chunk = json.loads(event.data)
                if chunk["choices"]:
                    job.take(chunk["choices"][0]["text"])
