"""Servers that stop, start anew or kill a worker while streams are live: bounded, and clean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import SOON, stopwatch, wait_until
from wsgi.servers import (
    ENDING,
    RELOADING,
    START,
    STOP,
    SYNC,
    Kind,
    Reader,
    Served,
    last_type,
    serving,
    stop,
)

from vllm_http.testing import ReceivedRequest, Stall, Text


def stalled(served: Served, reader: Reader) -> ReceivedRequest:
    """The engine's side of a stream whose first token has come, and nothing since."""
    first, second = reader.event(), reader.event()
    assert first is not None
    assert second is not None
    assert (first["type"], second["type"]) == ("started", "token")
    request = served.engine.wait_for_requests(1, path="/v1/completions")[-1]
    assert not request.hung_up.is_set()
    return request


@pytest.mark.parametrize("kind", ENDING, ids=str)
def test_stop_with_a_live_stream(kind: Kind, tmp_path: Path) -> None:
    """A server that is told to stop is gone soon after its patience, and the engine is free."""
    with serving(kind, tmp_path) as served:
        served.engine.script(Text("x"), Stall())
        with Reader(served.port) as reader:
            request = stalled(served, reader)
            seconds = stop(served.process)

            assert request.hung_up.wait(SOON)

    print(f"{kind}: gone after {seconds:.1f} s")
    assert seconds < STOP


@pytest.mark.parametrize("kind", RELOADING, ids=str)
def test_reload_with_a_live_stream(kind: Kind, tmp_path: Path) -> None:
    """The old worker goes and frees the engine, and new ones serve."""
    assert kind.reload is not None
    with serving(kind, tmp_path, *kind.patience) as served:
        served.engine.script(Text("x"), Stall())
        with Reader(served.port) as reader:
            request = stalled(served, reader)
            with stopwatch() as watch:
                os.kill(served.process.pid, kind.reload)
                assert request.hung_up.wait(STOP)
        wait_until(lambda: last_type(served.port) == "end", START)

    print(f"{kind}: free after {watch.seconds:.1f} s")


def test_worker_that_is_killed_for_its_patience(tmp_path: Path) -> None:
    """gunicorn ends a sync worker whose stream is longer than --timeout; the engine is freed."""
    with serving(SYNC, tmp_path, "--timeout=1") as served:
        served.engine.script(Text("x"), Stall())
        with Reader(served.port) as reader:
            request = stalled(served, reader)

            assert request.hung_up.wait(STOP)
            assert reader.event() is None
        assert last_type(served.port) == "end"
