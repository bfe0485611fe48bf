"""One request as it came over the wire."""

from __future__ import annotations

import json
import threading
from typing import Any


class ReceivedRequest:
    """One request that the engine received; safe to read from any thread.

    Attributes:
        method: such as ``"POST"``.
        path: with its query, as on the request line.
        headers: (name, value) pairs in the order and case of the wire.
        body: the whole body, without chunk framing.
        connection: which TCP connection it came on; the first one is 1.
        hung_up: set once the client has closed, half-closed or reset the connection before
            the answer was complete.
        finished: set once the answer is fully sent or given up.
    """

    def __init__(
        self,
        method: str,
        path: str,
        version: str,
        headers: list[tuple[str, str]],
        body: bytes,
        connection: int,
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.headers = headers
        self.body = body
        self.connection = connection
        self.hung_up = threading.Event()
        self.finished = threading.Event()

    def header(self, name: str) -> str | None:
        """The first header of this name, whatever its case, or None."""
        return next(iter(self.headers_named(name)), None)

    def headers_named(self, name: str) -> list[str]:
        """The values of all headers of this name, in their order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self) -> Any:
        """The body read as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)

    @property
    def route(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def keeps_alive(self) -> bool:
        """Whether the client lets the connection live on after the answer."""
        wanted = (self.header("connection") or "").lower()
        return self.version == "HTTP/1.1" and wanted != "close"

    def __repr__(self) -> str:
        return f"<{self.method} {self.path} on connection {self.connection}>"
