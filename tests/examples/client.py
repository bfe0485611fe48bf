"""A client that takes server-sent events one by one."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from typing import Any, NamedTuple

from examples.programs import START


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    text: str


class Received(NamedTuple):
    """One server-sent event."""

    id: str
    data: dict[str, Any]


def post(port: int, path: str, body: Any = None) -> Reply:
    """Send JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return Reply(response.status, response.read().decode())
    finally:
        connection.close()


def ask(port: int, question: str) -> str:
    """Ask a chat, and return the path of the answer."""
    reply = post(port, "/answers", {"question": question, "turns": []})
    assert reply.status == 200, reply
    return f"/answers/{json.loads(reply.text)['answer']}"


class Reader:
    """Follows one response, and leaves when its block ends.

    Args:
        port: Of the server.
        path: Of the events.
        headers: Of the request.
    """

    def __init__(self, port: int, path: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START)
        self._connection.request("GET", path, headers=headers)
        self._response = self._connection.getresponse()
        self.status = self._response.status

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()
        self._connection.close()

    def text(self) -> str:
        """The body of what is no stream."""
        return self._response.read().decode()

    def event(self) -> Received | None:
        """The next event; None at the end."""
        id = ""
        for line in iter(self._response.readline, b""):
            if line.startswith(b"id: "):
                id = line.removeprefix(b"id: ").decode().strip()
            elif line.startswith(b"data: "):
                return Received(id, json.loads(line.removeprefix(b"data: ")))
        return None

    def token(self) -> str:
        """The text of the next token."""
        while (event := self.event()) is not None:
            if event.data["type"] == "token":
                return str(event.data["text"])
        raise AssertionError("the answer ended")

    def events(self) -> list[Received]:
        """All that are left."""
        return list(iter(self.event, None))
