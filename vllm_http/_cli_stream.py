"""One stream on its way to stdout, and what a person wants to know of it on stderr."""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ._cli_exit import DONE, INTERRUPTED
from ._cli_lines import say, shown_json, shown_text
from ._events import End, Error, Started, Token, TokenEvent
from ._metrics import Metrics
from ._redact import word
from ._stream import TokenStream


def print_text(stream: TokenStream) -> int:
    """Print the text piece by piece, then the metrics on stderr; see `_print`."""
    last = "\n"
    form = shown_text if sys.stdout.isatty() else str

    def show(event: TokenEvent) -> None:
        nonlocal last
        if isinstance(event, Token):
            print(form(event.text), end="", flush=True)
            last = event.text[-1:] or last
        elif isinstance(event, (End, Error)) and last != "\n":
            print(flush=True)

    return _print(_with_the_wait_told(stream) if sys.stderr.isatty() else stream, stream, show)


def print_json(stream: TokenStream) -> int:
    """Print one event a line, then the metrics on stderr; see `_print`."""
    form = shown_json if sys.stdout.isatty() else str
    return _print(stream, stream, lambda event: print(form(event.to_json()), flush=True))


def _print(
    events: Iterator[TokenEvent], stream: TokenStream, show: Callable[[TokenEvent], None]
) -> int:
    """Show the events to the last one.

    Returns:
        The exit code.

    Raises:
        WorkerError: What an `Error` event holds.
        KeyboardInterrupt: At the second ctrl-C; the first one cancels the task.
    """
    with _ctrl_c_cancels(stream):
        for event in events:
            show(event)
    if isinstance(event, Error):
        raise event.error
    assert isinstance(event, End)  # one of the two is always the last
    say(summary(event))
    return INTERRUPTED if event.finish_reason == "cancelled" else DONE


def summary(end: End) -> str:
    """Such as ``16 tokens, first after 43 ms, 31.5 tokens/s, finish_reason length``."""
    metrics = end.metrics
    tokens = metrics.tokens_generated
    parts = [f"{tokens} token{'' if tokens == 1 else 's'}"]
    if metrics.usage_source == "client":
        parts[0] += " (counted here)"
    if metrics.latency_first_token_ms is not None:
        parts.append(f"first after {metrics.latency_first_token_ms:.0f} ms")
    if (rate := _tokens_per_second(metrics)) is not None:
        parts.append(f"{rate:.1f} tokens/s")
    if metrics.attempts > 1:
        parts.append(f"{metrics.attempts} attempts")
    return ", ".join([*parts, f"finish_reason {word(end.finish_reason)}"])


def _tokens_per_second(metrics: Metrics) -> float | None:
    """The pace after the first token, which has its own number."""
    if not metrics.decode_time_ms or metrics.tokens_generated < 2:
        return None
    return (metrics.tokens_generated - 1) / metrics.decode_time_ms * 1000


@contextmanager
def _ctrl_c_cancels(stream: TokenStream) -> Iterator[None]:
    """The first ctrl-C cancels the task, so that it ends as every stream does, with an `End`.

    An exception in the middle of the queue's locks could do harm, and what was printed would be
    left without its line end. The second ctrl-C is a KeyboardInterrupt again.
    """
    before = signal.getsignal(signal.SIGINT)

    def cancel(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        # On a thread of its own: this one may hold the lock that cancel takes.
        threading.Thread(target=stream.cancel, name="vllm_http-ctrl-c", daemon=True).start()

    if before is signal.SIG_IGN:  # as nohup wants it
        yield
        return
    signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _with_the_wait_told(stream: TokenStream) -> Iterator[TokenEvent]:
    """The events after `Started`; until they come, stderr tells each second how long it has been.

    For terminals: the line is written over and wiped.
    """
    began = time.monotonic()
    event: TokenEvent | None = None
    told = False
    try:
        while event is None or isinstance(event, Started):
            try:
                event = stream.get(timeout=1.0)
            except queue.Empty:
                waited = f"waiting for the first token, {time.monotonic() - began:.0f} s"
                print(f"\r{waited}", end="", file=sys.stderr, flush=True)
                told = True
    finally:
        if told:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    yield event
    yield from stream
