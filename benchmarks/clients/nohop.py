"""requests at its leanest: no SSE parser, no queue, no thread but the consumer's."""

from __future__ import annotations

import orjson
import requests
from requests.adapters import HTTPAdapter

from .base import Job, Threaded


class NoHop(Threaded):
    """The consumer reads its own response."""

    def __init__(self, url: str, streams: int) -> None:
        self._url = f"{url}/v1/completions"
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=streams))

    def drain(self, job: Job) -> None:
        """Read what has come, split it at the blank lines, decode."""
        take = job.take
        rest = b""
        with self._session.post(self._url, json=job.body(), stream=True) as response:
            response.raise_for_status()
            for data in response.iter_content(None):
                events = (rest + data).split(b"\n\n")
                rest = events.pop()
                for event in events:
                    if event.startswith(b"data: {"):
                        choices = orjson.loads(event[6:])["choices"]
                        if choices:
                            take(choices[0]["text"])
