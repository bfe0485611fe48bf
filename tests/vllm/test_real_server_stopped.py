"""A server told to stop goes silent with its connections open: our own clock ends a stream."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vllm_http import (
    EngineUnavailable,
    Error,
    TaskRequest,
    Timeout,
    Timeouts,
    Token,
    TokenEvent,
    TokenStream,
    VllmHttpAdapter,
)

from .server import MODEL, Server


STALL = 2.0  # seconds
LONG: dict[str, Any] = {"prompt": "Hello", "max_tokens": 1900}


@pytest.fixture
def patient_client(vllm: Server) -> Iterator[None]:
    """Have another client with a stream that never hangs up: vLLM does not end while there is."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", vllm.port)) as client:
        body = json.dumps({"model": MODEL, "stream": True, "ignore_eos": True, **LONG})
        client.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        client.getresponse()
        yield


def last_event(stream: TokenStream) -> tuple[TokenEvent, float]:
    """Drain *stream*: what came last, and how long after the last token."""
    last_token = time.monotonic()
    for event in stream:
        if isinstance(event, Token):
            last_token = time.monotonic()
    return event, time.monotonic() - last_token


def _told(end: tuple[TokenEvent, float]) -> str:
    event, seconds = end
    error = type(event.error).__name__ if isinstance(event, Error) else event
    return f"{error} after {seconds:.2f} s"


def test_an_engine_that_hangs_in_mid_stream(
    adapter: VllmHttpAdapter, vllm: Server, measured: Callable[[str], None]
) -> None:
    """Each stream ends with the stall clock, not sooner; an engine that wakes again serves on."""
    task = TaskRequest(model=MODEL, extra_body={"ignore_eos": True}, **LONG)
    engine = [pid for pid, name in vllm.members().items() if "VLLM::" in name]
    with contextlib.ExitStack() as stack:
        timeouts = Timeouts(stall=STALL)
        streams = [stack.enter_context(adapter.submit(task, timeouts=timeouts)) for _ in range(2)]
        for stream in streams:
            next(event for event in stream if isinstance(event, Token))
        for pid in engine:
            os.kill(pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as pool:
                ends = list(pool.map(last_event, streams))
        finally:
            for pid in engine:
                os.kill(pid, signal.SIGCONT)

    measured("the hanging engine's streams ended with " + ", ".join(map(_told, ends)))
    for event, seconds in ends:
        _assert_stalled(event, seconds)
    short = TaskRequest(model=MODEL, prompt="Hello", max_tokens=5)
    assert adapter.submit(short).result(timeout=60).error is None


def _assert_stalled(event: TokenEvent, seconds: float) -> None:
    assert isinstance(event, Error)
    assert isinstance(event.error, Timeout)
    assert event.error.phase == "stall"
    # This thread may have seen the last token later than it came.
    assert STALL - 0.5 < seconds < STALL + 1.5


@pytest.mark.usefixtures("patient_client")
def test_a_server_that_goes_silent_in_mid_stream(
    adapter: VllmHttpAdapter, vllm: Server, measured: Callable[[str], None]
) -> None:
    """Each stream ends with the stall clock; the hanging server can still be ended.

    On a busy machine vLLM may find the time for an error event before it goes silent. That is an
    honest end as well, and comes at once.
    """
    task = TaskRequest(model=MODEL, extra_body={"ignore_eos": True}, **LONG)
    timeouts = Timeouts(stall=STALL, total=60.0)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(adapter.submit(task, timeouts=timeouts)) for _ in range(2)]
        for stream in streams:
            next(event for event in stream if isinstance(event, Token))
        # The server alone: sent to the whole group, it may end the engine first, and then vLLM
        # still finds the time for an error event.
        os.kill(vllm.process.pid, signal.SIGTERM)
        with ThreadPoolExecutor() as pool:
            ends = list(pool.map(last_event, streams))

    measured("the stopped server's streams ended with " + ", ".join(map(_told, ends)))
    for event, seconds in ends:
        assert isinstance(event, Error)
        if isinstance(event.error, EngineUnavailable):
            assert event.error.status == 500
        else:
            _assert_stalled(event, seconds)

    assert vllm.process.poll() is None
    vllm.stop()
    assert vllm.members() == {}
