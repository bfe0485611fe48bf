"""The words of a refusal, which may never come: its status is told without them."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator

import pytest
from calls_support import Reply, quick, replying, the_failure
from peers import Peer, read_head
from support import LIMIT, ONCE, SOON, a_task, failure, stopwatch
from urllib3.util.wait import wait_for_read

from vllm_http import StreamingError, Timeout, Timeouts, VllmHttpAdapter, _transport_answer


DRIPS = {
    "nothing": b"content-length: 50\r\n\r\n",
    "half": b"content-length: 50\r\n\r\nhalf",
    "letters": b"content-length: 50000\r\n\r\n",
    "chunks": b"transfer-encoding: chunked\r\n\r\n",
    "a chunk's size": b"transfer-encoding: chunked\r\n\r\n",
    "to the end": b"\r\n",
}
PIECES = {"letters": b"x", "chunks": b"1\r\nx\r\n", "a chunk's size": b";", "to the end": b"x"}


def dripping(status: bytes, kind: str, gate: threading.Event) -> Reply:
    """A reply with that status whose body does not come to an end."""

    def reply(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 " + status + b"\r\n" + DRIPS[kind])
        while not gate.wait(LIMIT / 10):
            if piece := PIECES.get(kind):
                sock.sendall(piece)

    return reply


CLOCK = Timeouts(first_token=LIMIT / 3)
"""Shorter than the patience with a refusal's words."""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Ends all drips, which are waited for a third as long as otherwise."""
    assert _transport_answer.PATIENCE == 1
    monkeypatch.setattr(_transport_answer, "PATIENCE", LIMIT)
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.mark.parametrize("kind", DRIPS)
@pytest.mark.parametrize(
    ("status", "expected"),
    [(b"400 Bad Request", 400), (b"401 Unauthorized", 401), (b"503 Unavailable", 503)],
)
def test_status_wins_over_its_words(
    gate: threading.Event, status: bytes, expected: int, kind: str
) -> None:
    """What the status says is told within a moment, though the first token's clock is shorter."""
    with (
        replying(dripping(status, kind, gate)) as server,
        VllmHttpAdapter(server.url, retry=ONCE, timeouts=CLOCK) as adapter,
        stopwatch() as watch,
    ):
        adapter._version._known = "0"
        error, seen = failure(adapter.submit(a_task()))
        gate.set()

    assert (error.status, seen) == (expected, ["error"])
    assert watch.seconds < SOON


@pytest.mark.parametrize("kind", DRIPS)
def test_wrong_content_type_wins_over_its_body(gate: threading.Event, kind: str) -> None:
    """What is no event stream is told so, whatever comes of it."""
    status = b"200 OK\r\ncontent-type: text/plain"
    with (
        replying(dripping(status, kind, gate)) as server,
        VllmHttpAdapter(server.url, retry=ONCE, timeouts=CLOCK) as adapter,
        stopwatch() as watch,
    ):
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))
        gate.set()

    assert isinstance(error, StreamingError)
    assert "text/plain" in error.message
    assert watch.seconds < SOON


@pytest.mark.parametrize("kind", DRIPS)
def test_status_wins_over_its_words_in_small_calls(gate: threading.Event, kind: str) -> None:
    """They are told it as well, well within their five seconds."""
    drip = dripping(b"422 No", kind, gate)

    def talk(sock: socket.socket) -> None:
        if read_head(sock):
            drip(sock)

    with (
        Peer(talk) as peer,
        quick(peer.url(), retry=ONCE) as adapter,
        stopwatch() as watch,
    ):
        errors = [
            the_failure(lambda: adapter.tokenize("Hello")),
            the_failure(adapter.models),
        ]
        gate.set()

    assert [error.status for error in errors] == [422, 422]
    assert watch.seconds < SOON


def test_words_that_come_late_are_told(gate: threading.Event) -> None:
    """What has come by then is shown."""
    with (
        replying(dripping(b"400 No", "half", gate)) as server,
        VllmHttpAdapter(server.url, retry=ONCE) as adapter,
    ):
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))
        gate.set()

    assert error.message == "engine answered 400: half"


def test_deadline_wins_over_a_status(gate: threading.Event) -> None:
    """It is the caller's own, and counts all that happens."""
    with (
        replying(dripping(b"400 No", "nothing", gate)) as server,
        VllmHttpAdapter(server.url, retry=ONCE, timeouts=Timeouts(total=LIMIT / 3)) as adapter,
    ):
        adapter._version._known = "0"
        error, _ = failure(adapter.submit(a_task()))
        gate.set()

    assert isinstance(error, Timeout)
    assert error.phase == "deadline"


def test_words_that_come_late_are_waited_for_at_their_own_socket(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at another descriptor, which may be readable always, or never."""
    waited_at: list[bool] = []

    def note(sock: int, timeout: float) -> bool:
        waited_at.append(stat.S_ISSOCK(os.fstat(sock).st_mode))
        return wait_for_read(sock, timeout)  # type: ignore[arg-type]

    monkeypatch.setattr(_transport_answer, "wait_for_read", note)
    with (
        replying(dripping(b"400 No", "half", gate)) as server,
        VllmHttpAdapter(server.url, retry=ONCE) as adapter,
    ):
        adapter._version._known = "0"
        failure(adapter.submit(a_task()))
        gate.set()

    assert set(waited_at) == {True}
