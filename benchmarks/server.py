"""A vLLM-shaped server that is never the bottleneck; it runs in a process of its own.

What it does is in the request's model name:

    flood                     max_tokens events at once
    paced:<rate>:<streams>    rate events a second, each stream at a phase of its own
    step:<rate>:<streams>     rate events a second, all streams in the same instant

Paced and stepped streams begin together, once that many requests with the same model name have
come (more parts of the name only tell runs apart). The text of their tokens is the monotonic clock
in nanoseconds, taken just before the send. The texts of a flood differ (litellm takes a model that
repeats itself for broken) but have one length.

The bytes are vLLM 0.32's (tests/captures), one HTTP chunk for each event.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import queue
import random
import resource
import socket
import sys
import threading
import time
from dataclasses import dataclass, field


TEXT_LENGTH = 6
"""Characters in each token of a flood."""

_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 03:12:55 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_CHOICE = (
    '{"index":0,"text":"%s","logprobs":null,"finish_reason":%s,"stop_reason":null,'
    '"prompt_token_ids":null,"token_ids":null}'
)
_STAMP = "%019d"  # of one length, so that the chunk's size is known beforehand
_BLOCK = 1024  # events that one sendall takes


def _event(model: str, choices: str, usage: str = "") -> bytes:
    """One event in its HTTP chunk."""
    event = (
        f'data: {{"id":"cmpl-849bd816f4cffcf7","object":"text_completion","created":1795403575,'
        f'"model":"{model}","choices":[{choices}]{usage}}}\n\n'
    )
    return b"%x\r\n%s\r\n" % (len(event), event.encode())


def _token(model: str, text: str, finish: str = "null") -> bytes:
    return _event(model, _CHOICE % (text, finish))


def _tail(model: str, tokens: int) -> bytes:
    """The usage event, [DONE] and the last chunk."""
    usage = (
        f',"usage":{{"prompt_tokens":5,"total_tokens":{tokens + 5},"completion_tokens":{tokens}}}'
        ',"system_fingerprint":"vllm-0.32.0-17e1c714"'
    )
    return _event(model, "", usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(order=True)
class Stream:
    """A paced or stepped answer; ordered by when its next token is due."""

    due: float
    connection: socket.socket = field(compare=False)
    model: str = field(compare=False)
    tokens: int = field(compare=False)
    sent: int = field(default=0, compare=False)
    gone: bool = field(default=False, compare=False)
    backlog: bytes = field(default=b"", compare=False)

    def __post_init__(self) -> None:
        mode, rate, streams, *_ = self.model.split(":")
        self.interval = 1 / float(rate)
        self.group = int(streams)
        self.in_step = mode == "step"
        # Stamps have one length, so the clock goes between two halves made beforehand.
        probe = _STAMP % 0
        self._halves = _token(self.model, f" {probe}").split(probe.encode())
        last = _token(self.model, f" {probe}", '"length"').split(probe.encode())
        self._last = (last[0], last[1] + _tail(self.model, self.tokens))

    def send_token(self) -> None:
        """Send the next token, or as much as the caller has room for."""
        self.sent += 1
        before, after = self._halves if self.sent < self.tokens else self._last
        data = b"%s%019d%s" % (before, time.monotonic_ns(), after)
        self.backlog = self._push(self.backlog + data if self.backlog else data)

    def flush(self) -> None:
        """Send what did not fit before."""
        self.backlog = self._push(self.backlog)

    def _push(self, data: bytes) -> bytes:
        try:
            return data[self.connection.send(data, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return data
        except OSError:
            self.gone = True
            return b""

    @property
    def over(self) -> bool:
        """Whether nothing is left to send."""
        return self.gone or (self.sent >= self.tokens and not self.backlog)


class Pacer:
    """One thread that sends every paced and stepped token when it is due."""

    def __init__(self) -> None:
        self._arrivals: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._waiting: dict[str, list[Stream]] = {}
        self._due: list[Stream] = []

    def add(self, stream: Stream) -> None:
        """Take a stream over."""
        self._arrivals.put(stream)

    def serve(self) -> None:
        """Send, for ever."""
        while True:
            wait = self._due[0].due - time.monotonic() if self._due else None
            if wait is None or wait > 0:
                with contextlib.suppress(queue.Empty):
                    self._admit(self._arrivals.get(timeout=wait))
            else:
                self._send(self._due[0])

    def _admit(self, stream: Stream) -> None:
        group = [other for other in self._waiting.get(stream.model, []) if not other.gone]
        group.append(stream)
        self._waiting[stream.model] = group
        if len(group) < stream.group:
            return
        del self._waiting[stream.model]
        start = time.monotonic() + 0.2
        for member in group:
            phase = 0.0 if member.in_step else random.random() * member.interval
            member.due = start + phase
            heapq.heappush(self._due, member)

    def _send(self, stream: Stream) -> None:
        if stream.sent < stream.tokens:
            stream.send_token()
        else:
            stream.flush()
        if stream.over:
            heapq.heappop(self._due)
        else:
            stream.due += stream.interval
            heapq.heapreplace(self._due, stream)


class Server:
    """A thread for each connection, which reads requests and answers all but the paced ones."""

    def __init__(self) -> None:
        self._pacer = Pacer()
        self._events = [_token("flood", f" {number:05d}") for number in range(_BLOCK)]
        self._block = b"".join(self._events)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Serve until the process ends."""
        threading.Thread(target=self._pacer.serve, daemon=True).start()
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        stream: Stream | None = None
        try:
            with connection, connection.makefile("rb") as lines:
                while request := lines.readline():
                    length = 0
                    while (line := lines.readline()) not in (b"\r\n", b""):
                        name, _, value = line.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    stream = self._answer(connection, request, lines.read(length))
        except OSError:
            pass  # the client was stopped
        finally:
            if stream is not None:
                stream.gone = True

    def _answer(self, connection: socket.socket, request: bytes, body: bytes) -> Stream | None:
        method, path, _ = request.split()
        if method == b"GET":
            connection.sendall(_page(path))
            return None
        task = json.loads(body)
        model, tokens = task["model"], task["max_tokens"]
        if model != "flood":
            stream = Stream(0.0, connection, model, tokens)
            connection.sendall(_HEAD)
            self._pacer.add(stream)
            return stream
        self._flood(connection, tokens)
        return None

    def _flood(self, connection: socket.socket, tokens: int) -> None:
        blocks, rest = divmod(tokens - 1, len(self._events))
        end = b"".join(self._events[:rest]) + _token("flood", " word.", '"length"')
        end += _tail("flood", tokens)
        if not blocks:
            connection.sendall(_HEAD + end)
            return
        connection.sendall(_HEAD)
        for _ in range(blocks):
            connection.sendall(self._block)
        connection.sendall(end)


def _page(path: bytes) -> bytes:
    """The answers to the small calls."""
    pages: dict[bytes, object] = {
        b"/version": {"version": "0.32.0"},
        b"/v1/models": {"object": "list", "data": [{"id": "flood", "object": "model"}]},
        b"/health": None,
    }
    status = b"200 OK" if path in pages else b"404 Not Found"
    page = pages.get(path)
    body = b"" if page is None else json.dumps(page).encode()
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def main() -> None:
    """Print the port, then serve until stdin closes, as it does when the parent ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    threading.stack_size(256 * 1024)
    gc.disable()  # no pause within a step
    server = Server()
    threading.Thread(target=server.serve, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
