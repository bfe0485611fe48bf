"""A web server on 127.0.0.1 with pictures or sounds, from which vLLM fetches them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


NEVER = "never"  # what is asked for and does not come
PAGE = b"<html>neither picture nor sound</html>"


class MediaHost(ThreadingHTTPServer):
    """The server: `hosting` says what it serves.

    Attributes:
        files: What it has, by name. A name such as ``"404"`` is answered with that status, and
            all other names with a page.
        asked: Set once somebody has asked for `NEVER`.
        gate: Whoever asked waits until this is set.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = files
        self.asked = threading.Event()
        self.gate = threading.Event()

    def url(self, name: str) -> str:
        """Where it has the file of that name."""
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Answers(BaseHTTPRequestHandler):
    server: MediaHost

    def do_GET(self) -> None:  # the base class's name
        name = self.path.strip("/")
        if name == NEVER:
            self.server.asked.set()
            self.server.gate.wait()
            return
        content = self.server.files.get(name, PAGE)
        self.send_response(int(name) if name.isdecimal() else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # a refusal's content need not be read
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def hosting(files: dict[str, bytes]) -> Iterator[MediaHost]:
    """Have a host of those files for the length of a `with`, and nothing of it afterwards."""
    with MediaHost(files) as host:
        thread = threading.Thread(target=host.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield host
        finally:
            host.gate.set()
            host.shutdown()
            thread.join()
