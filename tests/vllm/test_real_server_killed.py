"""An engine that is killed ends every stream at once, and honestly."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from vllm_http import (
    EngineUnavailable,
    Error,
    HealthState,
    TaskRequest,
    Token,
    VllmHttpAdapter,
)

from .server import MODEL, Server


def test_the_engine_process_is_killed_in_mid_stream(
    adapter: VllmHttpAdapter, vllm: Server, measured: Callable[[str], None]
) -> None:
    """Each of four streams has one `Error` within two seconds and no `End`; health says no."""
    task = TaskRequest(
        model=MODEL, prompt="Hello", max_tokens=1900, extra_body={"ignore_eos": True}
    )
    (engine,) = (pid for pid, name in vllm.members().items() if "EngineCore" in name)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(adapter.submit(task)) for _ in range(4)]
        for stream in streams:
            next(event for event in stream if isinstance(event, Token))

        os.kill(engine, signal.SIGKILL)
        killed = time.monotonic()
        rests = [[event for event in stream if not isinstance(event, Token)] for stream in streams]
        seconds = time.monotonic() - killed

    measured(f"4 streams ended {seconds:.2f} s after their engine was killed")
    for rest in rests:
        (error,) = rest
        assert isinstance(error, Error)
        assert isinstance(error.error, EngineUnavailable)
    assert seconds < 2.0

    vllm.process.wait(timeout=60)
    assert adapter.health().state is HealthState.UNHEALTHY
