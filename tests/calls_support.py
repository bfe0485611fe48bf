"""What the tests of an adapter's calls share: a server that gives the answers it was told to."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from peers import Peer, read_head
from support import QUICKLY

from vllm_http import VllmHttpAdapter, WorkerError
from vllm_http.testing import FakeEngine


Reply = Callable[[socket.socket], None]
"""Answers one request on its socket."""


@dataclass
class Post:
    """One request as it came."""

    path: str
    head: str
    body: Any
    connection: int

    def header(self, name: str) -> str | None:
        """The value of a header."""
        found = re.search(rf"^{name}: (.*?)\r$", self.head, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else None


@dataclass
class Replying:
    """A server that gives its replies one after the other, whoever asks; the last one for ever.

    Attributes:
        posts: What has come.
        hung_up: Set once a client has left a connection.
    """

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    hung_up: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: int = 0

    def talk(self, sock: socket.socket) -> None:
        """Serve one connection."""
        with self.lock:
            self.connections += 1
            connection = self.connections
        while data := read_head(sock):
            head, _, rest = data.partition(b"\r\n\r\n")
            wanted = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
            while len(rest) < wanted:
                rest += sock.recv(65536)
            path = head.split()[1].decode()
            with self.lock:
                self.posts.append(Post(path, f"{head.decode()}\r\n", json.loads(rest), connection))
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            self.came.release()
            reply(sock)
        self.hung_up.set()

    def silence(self, sock: socket.socket) -> None:
        """A reply that never comes."""
        sock.recv(1)


@contextmanager
def replying(*replies: Reply) -> Iterator[Replying]:
    """A server with these replies; without any, one that says nothing."""
    server = Replying()
    server.replies = list(replies) or [server.silence]
    with Peer(server.talk) as peer:
        server.url = peer.url()
        yield server


def says(body: Any, status: int = 200, *headers: str) -> Reply:
    """A whole answer: bytes as they are, the rest as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(data)}", *headers]
    head = "\r\n".join([*lines, "content-type: application/json", "", ""]).encode()
    return lambda sock: sock.sendall(head + data)


def cut(body: bytes, promised: int) -> Reply:
    """An answer that ends before its promised length, with its connection."""

    def reply(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (promised, body))
        sock.shutdown(socket.SHUT_RDWR)

    return reply


def hang_up(sock: socket.socket) -> None:
    """No answer: the connection ends."""
    sock.shutdown(socket.SHUT_RDWR)


Ask = Callable[..., object]

CALLS: dict[str, Ask] = {
    "embed": lambda adapter, **options: adapter.embed("Hello", **options),
    "score": lambda adapter, **options: adapter.score("a", ["b", "c"], **options),
    "rerank": lambda adapter, **options: adapter.rerank("a", ["b", "c"], **options),
    "tokenize": lambda adapter, **options: adapter.tokenize("Hello", **options),
    "detokenize": lambda adapter, **options: adapter.detokenize([1, 2], **options),
}
"""Each call in its plainest form."""

every_call = pytest.mark.parametrize("call", CALLS)

PATHS = {
    "embed": "/v1/embeddings",
    "score": "/v1/score",
    "rerank": "/v1/rerank",
    "tokenize": "/tokenize",
    "detokenize": "/detokenize",
}

REFUSAL = {"error": {"message": "Not now", "type": "Error", "param": None, "code": 0}}
"""What goes with a status that refuses."""

TOKENS = {"count": 2, "max_model_len": 64, "tokens": [5, 6], "token_strs": None}
"""An answer to ``tokenize``."""


THREE = [0.5, -1.25, 3.0]
"""A vector of numbers that 32 bits hold exactly."""


def encoded(vector: list[float]) -> str:
    """A vector as vLLM writes it when it is asked for base64 in little-endian order."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def vectors_answer(*vectors: Any, **changes: Any) -> dict[str, Any]:
    """vLLM's answer with these vectors, in the form of a real one."""
    data = [
        {"index": index, "object": "embedding", "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {
        "prompt_tokens": 7,
        "total_tokens": 7,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    whole: dict[str, Any] = {
        "id": "embd-83d48a090e5216a3",
        "object": "list",
        "created": 1795623708,
        "model": "smollm2",
        "data": data,
        "usage": usage,
    }
    return whole | changes


def the_failure(ask: Callable[[], object]) -> WorkerError:
    """What a call raises."""
    try:
        answer = ask()
    except WorkerError as error:
        return error
    raise AssertionError(f"it answered: {answer!r}")


def sent_body(engine: FakeEngine, path: str) -> dict[str, Any]:
    """The JSON of the last request to a path."""
    body: dict[str, Any] = engine.wait_for_requests(1, path=path)[-1].json
    return body


def quick(url: str, **options: Any) -> VllmHttpAdapter:
    """An adapter whose retries do not wait."""
    return VllmHttpAdapter(url, **{"retry": QUICKLY, **options})
