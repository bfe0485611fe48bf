"""http.client and json: what comes with Python."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from .base import Job, Threaded


class Stdlib(Threaded):
    """Line by line; connections are kept, as a careful user would."""

    def __init__(self, url: str, streams: int) -> None:
        self._netloc = urlsplit(url).netloc
        self._idle: list[http.client.HTTPConnection] = []

    def drain(self, job: Job) -> None:
        """Read lines to the end."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = http.client.HTTPConnection(self._netloc)
        body = json.dumps(job.body())
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices:
                    job.take(choices[0]["text"])
        self._idle.append(connection)
