"""Questions to the engine that have one document as an answer: asked once, and in time."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ._connections_exchange import Exchange
from ._errors import AdapterClosed, WorkerError, unforeseen
from ._frames import forget_frames
from ._threads import check_not_finalizing, deadline_in, join, patience, start_thread
from ._transport_documents import DocumentTransport


Send = Callable[[Exchange, float], bytes]
"""Sends a request on an exchange, given the seconds to connect in; returns the document."""


_Answers: TypeAlias = "queue.SimpleQueue[bytes | Exception]"


class Late(Exception):
    """No answer came in time."""


class Asker:
    """Asks, each question on a thread of its own. Thread-safe.

    Nothing can interrupt a DNS look-up: the caller leaves in time, the thread when it can.

    Args:
        transport: To the engine.
        connect_timeout: Seconds for TCP and TLS; None for no limit.
    """

    def __init__(self, transport: DocumentTransport, connect_timeout: float | None) -> None:
        self._transport = transport
        self._connect_timeout = math.inf if connect_timeout is None else connect_timeout
        self.closed = False
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's questions are not here."""
        self._lock = threading.RLock()
        self._live: dict[threading.Thread, tuple[Exchange, _Answers]] = {}
        # Not an Event: a signal handler that closes may run in the midst of a wait, and a
        # queue's put alone can be called there.
        self._closing: queue.SimpleQueue[None] = queue.SimpleQueue()

    def get(self, path: str, until: float) -> bytes:
        """A document of the engine.

        Args:
            path: Below the base URL.
            until: When to give up, by time.monotonic(); finite.

        Raises:
            Late: It did not come in time.
            WorkerError: It did not come.
        """
        headers = {"X-Correlation-Id": str(uuid.uuid4())}

        def send(exchange: Exchange, connect: float) -> bytes:
            return self._transport.get(exchange, path, headers, connect)

        return self._ask("probe", send, until)

    def post(self, path: str, body: bytes, headers: Mapping[str, str], until: float) -> bytes:
        """The engine's answer to a JSON body; see `DocumentTransport.post` for its size.

        Args:
            path: Below the base URL.
            body: JSON.
            headers: Besides those of every request.
            until: When to give up, by time.monotonic(); may be infinite.

        Raises:
            Late: It did not come in time.
            WorkerError: It did not come.
        """

        def send(exchange: Exchange, connect: float) -> bytes:
            limit = connect if connect < math.inf else None
            return self._transport.post(exchange, path, body, headers, limit)

        return self._ask("call", send, until)

    def unreadable(self, path: str, document: bytes, failure: WorkerError) -> WorkerError:
        """The error for a document that came whole and could not be read."""
        return self._transport.unreadable(path, document, failure)

    def pause(self, seconds: float) -> None:
        """Wait between two questions.

        Raises:
            AdapterClosed: `close` was called meanwhile.
        """
        until = time.monotonic() + seconds
        while not self.closed and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._closing.get(timeout=patience(left))
                self._closing.put(None)  # for the next one that waits
        self._check_open()

    def close(self, timeout: float) -> None:
        """End the questions under way, and wait so many seconds for their threads."""
        deadline = deadline_in(timeout)
        with self._lock:
            self.closed = True
            self._closing.put(None)
            live = list(self._live.items())
        for _, (exchange, answers) in live:
            exchange.abort()
            answers.put(_closed())  # the caller goes, though its thread may hang in a look-up
        for thread, _ in live:
            join(thread, deadline)

    def _ask(self, name: str, send: Send, until: float) -> bytes:
        exchange = Exchange()
        answers: _Answers = queue.SimpleQueue()
        self._check_open()
        try:
            start_thread(name, self._fetch, exchange, send, until, answers)
            answer = _take(answers, until)
        finally:
            exchange.abort()  # a caller who leaves early frees the engine
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _fetch(
        self,
        exchange: Exchange,
        send: Send,
        until: float,
        answers: _Answers,
    ) -> None:
        """The body of a question's thread."""
        me = threading.current_thread()
        with self._lock:
            self._live[me] = exchange, answers
        # A second more than the caller waits: when all time is used up, that is what is told.
        left = max(0.0, until - time.monotonic()) + 1.0
        connect = min(self._connect_timeout, left)
        try:
            self._check_open()  # now that it is live: `close` finds it, or came before
            answers.put(send(exchange, connect))
        except Exception as failure:
            answers.put(self._told(failure))
        finally:
            with self._lock:
                self._live.pop(me, None)

    def _told(self, failure: Exception) -> WorkerError:
        if self.closed:
            return _closed()
        error = failure if isinstance(failure, WorkerError) else unforeseen(failure)
        forget_frames(error)
        return error

    def _check_open(self) -> None:
        if self.closed:
            raise AdapterClosed("the adapter is closed")
        check_not_finalizing()


def _closed() -> AdapterClosed:
    return AdapterClosed("the adapter was closed")


def _take(answers: _Answers, until: float) -> bytes | Exception:
    """The answer of the thread.

    Raises:
        Late: It did not come in time.
    """
    while True:
        left = max(0.0, until - time.monotonic())
        try:
            return answers.get(timeout=patience(left))
        except queue.Empty:
            if left == 0.0:
                break
    raise Late
