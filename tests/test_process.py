"""Interrupts, and the end of the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import support
from support import SOON, a_task, kinds, posts, stopwatch

from vllm_http import VllmHttpAdapter, _bell, _threads
from vllm_http.testing import FakeEngine, Stall, Text


engine, adapter = support.engine, support.adapter

LIVE_STREAMS = """
import sys
from vllm_http import TaskRequest, VllmHttpAdapter
adapter = VllmHttpAdapter(sys.argv[1])
streams = [adapter.submit(TaskRequest(prompt="x", model="fake-model")) for _ in range(3)]
for stream in streams:
    next(stream), next(stream)
try:
    print("streams live", flush=True)
    {}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def run_with_live_streams(engine: FakeEngine, last_line: str) -> subprocess.Popen[str]:
    """A Python that has three live streams by now, and goes on with this line."""
    for _ in range(3):
        engine.script(Text("a"), Stall())
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", LIVE_STREAMS.format(last_line), engine.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "streams live\n"
    return child


def test_exit_with_live_streams(engine: FakeEngine) -> None:
    """A program that ends without closing anything ends at once and without a word."""
    child = run_with_live_streams(engine, "pass")
    with child, stopwatch() as watch:
        _, stderr = child.communicate(timeout=20)

    assert (child.returncode, stderr) == (0, "")
    assert watch.seconds < SOON
    assert all(post.hung_up.wait(SOON) for post in posts(engine, 3))


def test_exit_code_with_live_streams(engine: FakeEngine) -> None:
    """A program that leaves by an exception keeps its exit code and is not held up either."""
    child = run_with_live_streams(engine, "raise SystemExit(3)")
    with child, stopwatch() as watch:
        _, stderr = child.communicate(timeout=20)

    assert (child.returncode, stderr) == (3, "")
    assert watch.seconds < SOON


def test_keyboard_interrupt_in_the_loop(engine: FakeEngine) -> None:
    """Ctrl-C reaches a caller who waits for an event, and the program ends."""
    child = run_with_live_streams(engine, "for event in streams[0]: pass")
    with child, stopwatch() as watch:
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=20)

    assert (child.returncode, stdout, stderr) == (0, "interrupted\n", "")
    assert watch.seconds < SOON
    engine.wait_idle()


@contextmanager
def signal_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Once the main thread waits for an event, send SIGINT to another thread: nothing wakes it."""
    about_to_wait = threading.Event()

    def patience(timeout: float | None) -> float:
        if threading.current_thread() is threading.main_thread():
            about_to_wait.set()
        return _threads.patience(timeout)

    def interrupt() -> None:
        assert about_to_wait.wait(SOON)
        threading.Event().wait(0.02)  # nothing tells that it waits now
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    monkeypatch.setattr(_bell, "patience", patience)
    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


def test_interrupt_that_wakes_nobody(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches a caller who waits, also where the system gave it to another thread."""
    engine.script(Text("a"), Stall())
    with adapter.submit(a_task()) as stream:
        assert kinds([next(stream), next(stream)]) == ["started", "token"]
        with signal_elsewhere(monkeypatch), stopwatch() as watch, pytest.raises(KeyboardInterrupt):
            next(stream)

    assert watch.seconds < SOON
    engine.wait_idle()


def test_interrupt_of_many_that_wakes_nobody(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does where one caller drains all."""
    engine.script(Text("a"), Stall())
    many = adapter.stream_many([a_task()])
    assert kinds([next(many)[1], next(many)[1]]) == ["started", "token"]
    with signal_elsewhere(monkeypatch), stopwatch() as watch, pytest.raises(KeyboardInterrupt):
        next(many)

    assert watch.seconds < SOON
    engine.wait_idle()
