"""Compressed answers that grow a thousandfold: nobody asked for them, and they are bounded."""

from __future__ import annotations

import functools
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
from decoding import DONE, text
from floods import BOUND, DOCUMENT_BOUND, MB, OK, PATIENT, SSE, STREAM, client_of, measured
from peers import Peer, Talk, read_head
from support import SOON, a_task, failure, kinds, stopwatch, wait_until

from vllm_http import StreamingError, VllmHttpAdapter, WorkerError
from vllm_http._inflate import MOST, Inflater


SIZE = 160 * MB  # more than any bound, and a few hundred kilobytes as it is sent
COMMENTS = b": x\n\n"
WINDOWS = {"gzip": 31, "deflate": 15}


@functools.cache
def compressed(block: bytes, size: int, encoding: str = "gzip", *, whole: bool = True) -> bytes:
    """That many bytes of a block, again and again, compressed."""
    zipper = zlib.compressobj(9, wbits=WINDOWS[encoding])
    block *= max(1, MB // len(block))
    pieces = [zipper.compress(block) for _ in range(size // len(block))]
    return b"".join(pieces) + zipper.flush(zlib.Z_FINISH if whole else zlib.Z_SYNC_FLUSH)


def answering(head: bytes, body: bytes) -> Talk:
    """A server that answers each connection so."""

    def talk(sock: socket.socket) -> None:
        if read_head(sock):
            sock.sendall(head + b"\r\n" + body)

    return talk


def coded(encoding: str) -> bytes:
    """The header field."""
    return b"content-encoding: %b\r\n" % encoding.encode()


def outcome(talk: Talk, bound: int = BOUND) -> WorkerError:
    """How a task ends, its memory bounded."""
    with client_of(talk) as adapter, measured() as peak:
        error, _ = failure(adapter.submit(a_task()))
    assert peak.growth < bound, f"{peak.growth / MB:.0f} MB"
    return error


@pytest.fixture(scope="module", params=WINDOWS)
def bomb(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """An encoding, and a large number of zeros in it."""
    encoding: str = request.param
    return encoding, compressed(b"\0", SIZE, encoding)


def test_event_of_a_bomb(bomb: tuple[str, bytes]) -> None:
    """An event's limit holds for what was inflated; no more of it is kept than of a plain one."""
    encoding, body = bomb
    error = outcome(answering(SSE + coded(encoding), body))

    assert isinstance(error, StreamingError)
    assert f"more than {MB} bytes" in error.message


@pytest.mark.parametrize("status", [b"401 No", b"503 No", b"200 OK", b"307 Elsewhere"])
def test_error_body_of_a_bomb(bomb: tuple[str, bytes], status: bytes) -> None:
    """No more is inflated than is shown."""
    encoding, body = bomb
    error = outcome(answering(b"HTTP/1.1 " + status + b"\r\n" + coded(encoding), body))

    assert len(error.message) < 4096


def test_bomb_in_a_bomb(bomb: tuple[str, bytes]) -> None:
    """Nor where all of it is in a kilobyte, in twice the encodings."""
    encoding, body = bomb
    twice = gzip.compress(body)
    error = outcome(answering(b"HTTP/1.1 503 No\r\n" + coded(f"{encoding}, gzip"), twice))

    assert len(error.message) < 4096


CALLS: list[Callable[[VllmHttpAdapter], object]] = [
    VllmHttpAdapter.models,
    VllmHttpAdapter.metrics,
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("encoding", WINDOWS)
def test_document_of_a_bomb(encoding: str, call: Callable[[VllmHttpAdapter], object]) -> None:
    """A document's limit holds for what was inflated; its first line is no JSON and no metric."""
    body = compressed(b"{ }}\n", SIZE, encoding)
    talk = answering(OK + coded(encoding), body)
    with client_of(talk) as adapter, measured() as peak, pytest.raises(StreamingError):
        call(adapter)

    assert peak.growth < DOCUMENT_BOUND, f"{peak.growth / MB:.0f} MB"


# What one read may hold.


@pytest.mark.parametrize("begin", [b"", text("a")], ids=["worker", "reader"])
def test_comments_of_a_bomb(begin: bytes) -> None:
    """Millions of events that hold no content, out of one read, are not all kept at once."""
    body = gzip.compress(begin) + compressed(COMMENTS, 8 * MB)
    error = outcome(answering(SSE + coded("gzip"), body))

    assert isinstance(error, StreamingError)


def test_bomb_starves_no_other_stream() -> None:
    """One reader serves all streams: it turns to the others between two pieces of what it holds.

    The bomb takes it some twenty seconds, and ends earlier: it is cancelled, which is heard too.
    """
    body = gzip.compress(text("a")) + compressed(COMMENTS, 48 * MB, whole=False)
    bombs = [SSE + coded("gzip") + b"\r\n" + body]
    begun, left = threading.Semaphore(0), threading.Event()

    def talk(sock: socket.socket) -> None:
        if not read_head(sock):
            return
        if bombs:
            sock.sendall(bombs.pop())
            sock.recv(1)
            left.set()
            return
        sock.sendall(STREAM + text("b"))
        begun.acquire(timeout=SOON)  # the rest is the reader's
        sock.sendall(text("c", "stop") + DONE)

    with Peer(talk) as peer, VllmHttpAdapter(peer.url(), timeouts=PATIENT) as adapter:
        adapter._version._known = "0"
        with adapter.submit(a_task()) as bomb, stopwatch() as watch:
            assert kinds([next(bomb), next(bomb)]) == ["started", "token"]
            for _ in range(5):
                stream = adapter.submit(a_task())
                assert kinds([next(stream), next(stream)]) == ["started", "token"]
                begun.release()
                assert stream.result(SOON).text == "bc"
            assert not bomb.done
        assert left.wait(SOON)

    print(f"five tasks beside a bomb: {watch.seconds:.3f} s")


def test_cancel_in_a_bomb_before_content() -> None:
    """What is held would take the worker half a minute; its place is free at once all the same."""
    body = compressed(COMMENTS, 48 * MB, whole=False)
    begun = threading.Event()

    def talk(sock: socket.socket) -> None:
        if read_head(sock):
            sock.sendall(SSE + coded("gzip") + b"\r\n" + body)
            begun.set()
            sock.recv(1)

    with client_of(talk) as adapter:
        stream = adapter.submit(a_task())
        assert begun.wait(SOON)
        assert next(stream).type == "started"

        with stopwatch() as watch:
            stream.cancel()
            wait_until(lambda: adapter.running == 0)

    print(f"the place was free {watch.seconds * 1000:.1f} ms after the cancel")


def test_bomb_that_turns_bad() -> None:
    """What came before the bad byte is found in a moment: the thread that looks serves all."""
    inflater, data = Inflater(), bytearray()
    began = time.thread_time()

    data += inflater.feed(compressed(b"\0", 8 * MB, whole=False) + b"\xff" * 99)
    while inflater.failure is None:
        data += inflater.feed(b"")

    assert data.count(b"\0") == 8 * MB
    assert time.thread_time() - began < 1


def pieces_of(inflater: Inflater) -> Iterator[bytes]:
    """What it holds."""
    while inflater.failure is None and inflater.holds_bytes:
        yield inflater.feed(b"")


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("size", [MOST - 1, MOST, MOST + 1, 3 * MOST, 3 * MOST + 257])
@pytest.mark.parametrize("tail", [b"", b"no member at all"])
def test_pieces_of_a_bomb(size: int, members: int, tail: bytes) -> None:
    """All comes out in pieces of a limited size, wherever a piece and a member end."""
    data = bytes(size)
    inflater = Inflater()

    pieces = [inflater.feed(gzip.compress(data) * members + tail), *pieces_of(inflater)]

    assert b"".join(pieces) == data * members
    assert max(map(len, pieces)) <= MOST
    assert (inflater.failure is not None) == bool(tail)
    assert inflater.feed(b"") == b""
