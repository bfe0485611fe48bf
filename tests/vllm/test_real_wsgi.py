"""A web client that leaves frees a real vLLM, under each real web server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from wsgi.servers import KINDS, Kind, Reader, running

from .server import MODEL, Server


SERVERS = [kind for kind in KINDS if kind.on_ci and not kind.name.endswith("-preload")]
WHILE = 1.5  # seconds
AFTER = {"/long": "token", "/prefill": "started"}


@pytest.mark.parametrize("path", AFTER)
@pytest.mark.parametrize("kind", SERVERS, ids=str)
def test_reader_that_leaves_frees_the_engine(
    vllm: Server, tmp_path: Path, kind: Kind, path: str, measured: Callable[[str], None]
) -> None:
    """In mid-stream, and during the prefill, when nothing but heartbeats is written."""
    environ = {"VLLM_HTTP_TEST_ENGINE": vllm.url, "VLLM_HTTP_TEST_MODEL": MODEL}
    with running(kind, tmp_path, **environ) as (_, port):
        reader = Reader(port, path)
        while (event := reader.event()) is not None and event["type"] != AFTER[path]:
            pass
        assert event is not None

        reader.leave()

        # By then a request that nobody has ended is at work, and would be for half a minute.
        threading.Event().wait(WHILE)
        seconds = WHILE + vllm.seconds_until_idle()
        measured(f"idle at most {seconds:.2f} s after the client of {kind} left {path}")
        assert seconds < 5
