"""A program that fails in every way it can and prints all of it; run by test_hostile_secrets.py.

Arguments: a file for the log, and what is to be shown besides: ``wire`` (http.client's own debug
output), ``task`` (the repr of a task) or ``nothing``.
"""

from __future__ import annotations

import faulthandler
import http.client
import json
import logging
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from floods import STREAM
from peers import Peer, Talk, read_head

import vllm_http
from vllm_http import (
    AdapterRegistry,
    RetryPolicy,
    TaskRequest,
    Timeouts,
    TokenStream,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import (
    Cut,
    ErrorEvent,
    FakeEngine,
    Headers,
    Raw,
    Stall,
    Status,
    Step,
    Tokens,
)


KEY, PASSWORD = "k3y-s3cr3t-0123", "pr0xy-s3cr3t-4567"
HEADER, PROMPT = "h3ad3r-s3cr3t-89ab", "whispered-prompt-cdef"
ONCE = RetryPolicy(attempts=1)


def show(name: str, *values: Any) -> None:
    """Print all that can be printed of these."""
    print(f"--- {name}")
    for value in values:
        print(value, repr(value), f"{value!s}", [value], {"value": value})
        if isinstance(value, WorkerError):
            print(json.dumps(value.to_dict()), pickle.dumps(value), value.args)
            traceback.print_exception(value)
            logging.getLogger("application").error("failed", exc_info=value)
        elif hasattr(value, "to_json") and not isinstance(value, type):
            print(value.to_json())


def task(**fields: Any) -> TaskRequest:
    """A task with the prompt."""
    return TaskRequest(**{"prompt": PROMPT, "job_id": None, **fields})


def drain(name: str, stream: TokenStream) -> None:
    """Show a stream and its events."""
    show(name, stream, *stream, stream)


@contextmanager
def adapter(url: str, **options: Any) -> Iterator[VllmHttpAdapter]:
    """An adapter that has all the secrets."""
    headers = {"X-Gateway-Token": HEADER}
    timeouts = Timeouts(connect=5, first_token=5, stall=5)
    with VllmHttpAdapter(
        url, api_key=KEY, headers=headers, retry=ONCE, timeouts=timeouts, **options
    ) as one:
        show("adapter", one)
        yield one


def refusals() -> dict[str, tuple[Step, ...]]:
    """What an engine answers that was told the secrets, and repeats them."""
    told = f"Bearer {KEY} x-gateway-token: {HEADER}"
    elsewhere = {"location": f"http://127.0.0.1:1/?key={KEY}"}
    return {
        "401": (Status(401, {"error": {"message": f"no such key: {told}", "code": 401}}),),
        "500": (Status(500, f"<html>{told}".encode()),),
        "redirect": (Status(307, told.encode(), elsewhere),),
        "content type": (Status(200, told.encode(), {"content-type": told}),),
        "encoding": (Headers(headers={"content-encoding": KEY}),),
        "error event": (Tokens(2), ErrorEvent(f"rejected: {told}")),
        "garbage": (Headers(), Raw(f"data: {{{told}\n\n".encode())),
        "bytes": (Headers(), Raw(f"data: \xff{told}\n\n".encode("latin-1"))),
        "cut": (Tokens(1), Raw(f"data: {told}".encode()), Cut("rst")),
    }


def refuse(engine: FakeEngine) -> None:
    """Have all refusals, from one adapter."""
    with adapter(engine.url) as one:
        for name, steps in refusals().items():
            engine.script(*steps)
            drain(name, one.submit(task()))
            engine.script(*steps)
            show(f"{name}, mapped", *one.map([task()]))
        for path in ("/health", "/v1/models", "/metrics", "/version"):
            engine.override(path, 403, f"bad key {KEY} {HEADER}".encode())
        show("health", one.health(), one.engine_version())
        for call in (one.models, one.metrics, one.props):
            try:
                call()
            except WorkerError as error:
                show(call.__name__, error)


ENDS: dict[str, Callable[[VllmHttpAdapter, TokenStream], None]] = {
    "cancel": lambda adapter, stream: stream.cancel(),
    "close": lambda adapter, stream: stream.close(),
    "close of the adapter": lambda adapter, stream: adapter.close(),
}


def interrupt(engine: FakeEngine) -> None:
    """Cancel, drop and close in mid-stream, with all stacks dumped."""
    for end in ENDS:
        with adapter(engine.url) as one:
            engine.script(Tokens(1), Stall())
            stream = one.submit(task())
            show(end, next(stream), next(stream), stream.receiver)
            faulthandler.dump_traceback(all_threads=True)
            ENDS[end](one, stream)
            drain(end, stream)


def mislead() -> None:
    """TLS that is none, HTTP that is none, and a proxy that repeats its credentials."""

    def proxy(sock: Any) -> None:
        page = read_head(sock).partition(b"\r\n\r\n")[0] + b" " + PASSWORD.encode()
        size = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(page)
        sock.sendall(b"HTTP/1.1 407 Wanted\r\n" + size + page)

    def repeat(sock: Any) -> None:
        head = sock.recv(65536).partition(b"\r\n\r\n")[0]
        sock.sendall(b"no HTTP " + head)  # nor TLS

    def event(sock: Any) -> None:
        head = read_head(sock).partition(b"\r\n\r\n")[0]
        sock.sendall(STREAM + head.replace(b"\r\n", b"\n\n") + b"\n\n")

    talks: list[tuple[str, Talk, str]] = [
        ("no TLS", repeat, "https"),
        ("no HTTP", repeat, "http"),
        ("no event", event, "http"),
    ]
    for name, talk, scheme in talks:
        with Peer(talk) as peer, adapter(peer.url(scheme)) as one:
            drain(name, one.submit(task()))
    for scheme in ("http", "https"):
        with Peer(proxy) as peer:
            proxies = {scheme: f"http://user:{PASSWORD}@127.0.0.1:{peer.port}"}
            with adapter(f"{scheme}://vllm.invalid", proxies=proxies) as one:
                drain(f"{scheme} proxy", one.submit(task()))
                show("health through it", one.health())


def misuse(engine: FakeEngine) -> None:
    """What is refused before the wire, and what a registry shows."""
    bad: list[dict[str, Any]] = [
        {"prompt": [PROMPT]},
        {"max_tokens": 0},
        {"messages": [{"role": "user", "content": PROMPT}]},
        {"extra_body": {"x": {PROMPT}}},
    ]
    registry = AdapterRegistry()
    with adapter(engine.url) as one:
        registry.bind("pool", "replica", one)
        show("registry", registry)
        for fields in bad:
            try:
                one.submit(task(**fields))
            except WorkerError as error:
                show("refused", error)
    options: list[dict[str, Any]] = [
        {"api_key": f"{KEY}\n"},
        {"headers": {"X-Token": f"{HEADER}\n"}},
        {"proxies": {"http": f"ftp://user:{PASSWORD}@h"}},
        {"api_key": KEY, "headers": {"Authorization": HEADER}},
    ]
    for option in options:
        try:
            VllmHttpAdapter("http://127.0.0.1:1", **option)
        except WorkerError as error:
            show("refused", error)


def fail_unhandled(engine: FakeEngine) -> None:
    """Leave a thread, and then the program, with the error of a task."""
    one = VllmHttpAdapter(engine.url, api_key=KEY, retry=ONCE)

    def result() -> None:
        engine.script(*refusals()["401"])
        one.submit(task()).result()

    thread = threading.Thread(target=result)
    thread.start()
    thread.join()
    result()


def main() -> None:
    """All of it."""
    file, shown = sys.argv[1:]
    faulthandler.enable()
    handlers: list[logging.Handler] = [logging.FileHandler(file), logging.StreamHandler()]
    logging.basicConfig(level=logging.DEBUG, handlers=handlers)
    logging.captureWarnings(True)
    if shown == "wire":
        http.client.HTTPConnection.debuglevel = 1
    if shown == "task":
        print("task", repr(task()))  # its JSON is made to hold the prompt
    show("package", *(getattr(vllm_http, name) for name in vllm_http.__all__))
    with FakeEngine() as engine:
        refuse(engine)
        interrupt(engine)
        mislead()
        misuse(engine)
        fail_unhandled(engine)


if __name__ == "__main__":
    main()
