"""requests, sseclient-py, json and a queue, as people write it."""

from __future__ import annotations

import json
import queue
import threading

import requests
import sseclient
from requests.adapters import HTTPAdapter

from .base import Job, Threaded


class Naive(Threaded):
    """A thread for each task puts each event into a queue; the consumer takes them out."""

    def __init__(self, url: str, streams: int) -> None:
        self._url = f"{url}/v1/completions"
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=streams))

    def drain(self, job: Job) -> None:
        """Start the reader, and take from its queue."""
        events: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(job, events), daemon=True).start()
        while (text := events.get()) is not None:
            job.take(text)

    def _read(self, job: Job, events: queue.Queue[str | None]) -> None:
        with self._session.post(self._url, json=job.body(), stream=True) as response:
            response.raise_for_status()
            for event in sseclient.SSEClient(response).events():  # type: ignore[arg-type]
                if event.data == "[DONE]":
                    continue
                chunk = json.loads(event.data)
                if chunk["choices"]:
                    events.put(chunk["choices"][0]["text"])
        events.put(None)
