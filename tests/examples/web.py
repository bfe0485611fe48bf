"""The chat's web process, which ends and comes back."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from examples.conftest import CHAT
from examples.programs import START, Program, documented, free_port, on_port, running


FLASK = "python examples/flask_chat/app.py"
GUNICORN = "gunicorn --chdir examples/flask_chat -k gthread --threads 64"


@dataclass
class Web:
    """A web process that may be started again, on the same port.

    Attributes:
        start: How the command begins that README.md has for it.
        folder: For what its processes say.
        variables: Where it finds what is behind it.
    """

    start: str
    folder: Path
    variables: dict[str, str]
    port: int = field(default_factory=free_port)
    runs: int = 0
    around: ExitStack = field(default_factory=ExitStack)

    def begin(self) -> Program:
        """Start one, and wait until it serves."""
        self.runs += 1
        folder = self.folder / f"web-{self.runs}"
        folder.mkdir()
        command = on_port(documented(CHAT, self.start), self.port)
        # An old worker would finish its answers, for half a minute; it is to be in their midst.
        options = "--no-control-socket --graceful-timeout=1 --timeout=2"
        variables = {"GUNICORN_CMD_ARGS": options, "PORT": str(self.port), **self.variables}
        program = self.around.enter_context(running(command, folder, **variables))
        program.wait_serving(self.port)
        return program


def end(program: Program, how: signal.Signals) -> None:
    """Have the web process end, and wait for that; a kill hits what it has started as well."""
    processes = program.family()
    for pid in processes if how == signal.SIGKILL else [program.process.pid]:
        os.kill(pid, how)
    program.wait()
    program.wait_without(processes)


def refuse(port: int, times: int) -> None:
    """Answer some requests as a proxy does whose server is away."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(START)
        for _ in range(times):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(START)
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
