"""The engine's host: a FakeEngine in a process of its own, inside a network namespace."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from typing import Any
from unittest import mock

from vllm_http.testing import FakeEngine, Step


PORT = 8000
"""Free for certain: the namespace has nothing else in it."""


class Host:
    """Starts and kills the engine, and speaks with it over pipes, whatever the network does.

    Args:
        namespace: The network namespace's name.
        address: Where the engine listens.
    """

    def __init__(self, namespace: str, address: str) -> None:
        self.url = f"http://{address}:{PORT}"
        self._address = address
        self._enter = ["ip", "netns", "exec", namespace]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the engine; it listens when this returns."""
        command = [*self._enter, sys.executable, __file__, self._address]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # ctrl-C is for us
        )
        self.ask("start")

    def kill(self) -> None:
        """The process ends as with `kill -9`; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def script(self, *steps: Step) -> None:
        """As `FakeEngine.script`."""
        self.ask("script", *steps)

    def ask(self, name: str, *args: object) -> Any:
        """What the engine's method returns, or its attribute; of a list its length."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((name, args), process.stdin)
        process.stdin.flush()
        answer = pickle.load(process.stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(engine: FakeEngine, name: str, args: tuple[object, ...]) -> object:
    """What goes back: requests hold events, which stay here."""
    try:
        found = getattr(engine, name)
        said = found(*args) if callable(found) else found
    except Exception as failure:
        return failure
    return len(said) if isinstance(said, list) else said


def main(address: str) -> None:
    """Serve until the pipe ends, at this address: the engine itself knows 127.0.0.1 alone."""
    listen = socket.create_server

    def elsewhere(given: tuple[str, int], **options: Any) -> socket.socket:
        return listen((address, given[1]), **options)

    # No connection stays from the question for the version: a test's tasks find their own.
    engine = FakeEngine(port=PORT, keep_alive=60)
    engine.override("/version", 200, {"version": "0.32.0"}, {"connection": "close"})
    with mock.patch.object(socket, "create_server", elsewhere), engine:
        while True:
            try:
                name, args = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(answer(engine, name, args), sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
