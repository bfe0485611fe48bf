"""The fake engine itself: its public face, its listening socket and its threads."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from types import TracebackType
from typing import Any

from ._answer import HeaderFields
from ._connection import Connection
from ._generation import Model
from ._journal import Journal
from ._request import ReceivedRequest
from ._service import Service
from ._stage import ConnectionStep, Step, play_opening


# Far more than any thread needs to notice that its socket is shut.
_JOIN_TIMEOUT = 5.0


class FakeEngine:
    """A vLLM 0.32-shaped HTTP server on 127.0.0.1, inside this process.

    It answers completions and chat requests, streamed or not, with words that depend on nothing
    but the request and the seeds. `script` and `script_connection` make it misbehave, `close` and
    `start` make it die and come back. Every method is thread-safe.

    Args:
        model: the only model that it serves.
        port: 0 takes a free one, and the engine keeps it from then on.
        seed: another seed, other words.
        token_delay: seconds before each token but the first.
        first_token_delay: seconds before the first token.
        max_model_len: the context, in tokens (words, here).
        version: what /version tells.
        api_key: where set, the /v1 paths demand it as a bearer.
        keep_alive: seconds after which an idle connection is closed.
    """

    def __init__(
        self,
        model: str = "fake-model",
        *,
        port: int = 0,
        seed: int = 0,
        token_delay: float = 0.0,
        first_token_delay: float = 0.0,
        max_model_len: int = 2048,
        version: str = "0.32.0",
        api_key: str | None = None,
        keep_alive: float = 5.0,
    ) -> None:
        self._model = Model(model, version, max_model_len, seed)
        self._port = port
        self._keep_alive = keep_alive

        self._journal = Journal()
        self._service = Service(
            self._model,
            self._journal,
            api_key=api_key,
            first_token_delay=first_token_delay,
            token_delay=token_delay,
        )
        # Guards what follows.
        self._lock = threading.Lock()
        self._live: dict[Connection, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    def __enter__(self) -> FakeEngine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FakeEngine {self._model.name} on {self.url}>"

    @property
    def port(self) -> int:
        """The port; before the first start, the one asked for."""
        return self._port

    @property
    def url(self) -> str:
        """Such as ``http://127.0.0.1:8000``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """All requests so far, in the order of their arrival, across restarts."""
        return self._journal.requests

    @property
    def connections(self) -> int:
        """How many TCP connections have been accepted so far."""
        return self._journal.connections

    @property
    def open_connections(self) -> int:
        """How many TCP connections neither side has ended."""
        return self._journal.open_connections

    @property
    def running(self) -> int:
        """How many completions and chat requests are being answered now."""
        return self._journal.running

    def start(self) -> None:
        """Listen; does nothing while listening already.

        Raises:
            OSError: the port is taken.
        """
        with self._lock:
            if self._listener is not None:
                return
            # Reuses the address: after a close, old connections linger in TIME_WAIT.
            listener = socket.create_server(("127.0.0.1", self._port), backlog=1024)
            self._port = listener.getsockname()[1]
            self._listener = listener
            self._acceptor = threading.Thread(
                target=self._accept, args=(listener,), name="fake-engine-accept", daemon=True
            )
            self._acceptor.start()

    def stop_listening(self) -> None:
        """Refuse new connections until `start`; those that stand go on. Idempotent."""
        with self._lock:
            listener, acceptor = self._listener, self._acceptor
            self._listener = self._acceptor = None
        if listener is None or acceptor is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept; closing alone would not
        listener.close()
        acceptor.join(_JOIN_TIMEOUT)

    def close(self) -> None:
        """Stop listening, shut every connection, and join the threads; idempotent.

        A client in the middle of an answer sees its connection end, as when a server dies. After
        `start`, the same engine listens on the same port again, journal and scripts unchanged.
        """
        self.stop_listening()
        with self._lock:
            live = dict(self._live)
        for connection in live:
            connection.shut()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in live.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def script(self, *steps: Step) -> None:
        """Have the next completions or chat request answered by these steps.

        Several calls queue up, one for each request to come. A script is played whatever the
        request holds, even where the engine would have refused it; its end ends the body.
        """
        self._journal.queue(steps)

    def script_connection(self, *steps: ConnectionStep) -> None:
        """Meet the next TCP connection with these steps, before its first request is read.

        Several calls queue up, one for each connection to come. A connection that the steps leave
        open is served as ever after them.
        """
        self._journal.queue_opening(steps)

    def override(self, path: str, status: int, body: Any, headers: HeaderFields = ()) -> None:
        """Answer GET `path` with this from now on; bytes go out as they are, the rest as JSON."""
        self._service.override(path, status, body, headers)

    def wait_for_requests(
        self, n: int, timeout: float = 5.0, path: str | None = None
    ) -> list[ReceivedRequest]:
        """Wait until `n` requests (of this path, where given) have arrived, and return them all.

        Raises:
            TimeoutError: fewer came within `timeout` seconds.
        """
        return self._journal.wait_for_requests(n, timeout, path)

    def wait_idle(self, timeout: float = 5.0) -> None:
        """Wait until no completions or chat request is being answered.

        Raises:
            TimeoutError: some still are after `timeout` seconds.
        """
        self._journal.wait_idle(timeout)

    def wait_for_connections(self, n: int, timeout: float = 5.0) -> None:
        """Wait until `n` TCP connections have been accepted, those that ended included.

        Raises:
            TimeoutError: fewer came within `timeout` seconds.
        """
        self._journal.wait_for_connections(n, timeout)

    def wait_disconnected(self, timeout: float = 5.0) -> None:
        """Wait until no TCP connection is open, so that every client has let go.

        Raises:
            TimeoutError: some still are after `timeout` seconds.
        """
        self._journal.wait_disconnected(timeout)

    def _accept(self, listener: socket.socket) -> None:
        """Give each connection its thread; blocks only in accept, which `stop_listening` wakes."""
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._listener is not listener:
                    return
                raise
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._listener is not listener:
                    sock.close()
                    return
                self._open(sock)

    def _open(self, sock: socket.socket) -> None:
        number, script = self._journal.connected()
        opening = functools.partial(play_opening, script)
        connection = Connection(sock, number, self._keep_alive, opening, self._service.serve)
        thread = threading.Thread(
            target=self._attend,
            args=(connection,),
            name=f"fake-engine-connection-{number}",
            daemon=True,
        )
        self._live[connection] = thread
        thread.start()

    def _attend(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                del self._live[connection]
            self._journal.disconnected()
