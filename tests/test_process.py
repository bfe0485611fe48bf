"""Forks, interrupts, and the end of the interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import support
from support import SOON, a_task, answer, kinds, posts, stopwatch, the_error

from vllm_http import VllmHttpAdapter, _bell, _threads
from vllm_http.testing import FakeEngine, Stall, Text, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked child, which is ended when it takes too long."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os.write(write, json.dumps(work()).encode())
        except BaseException:
            os.write(write, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


@forks
def test_child_has_its_own_connections(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """After a fork the same adapter works in the child, on connections of the child's own."""
    assert adapter.submit(a_task()).result(timeout=SOON).error is None

    text = in_a_child(lambda: adapter.submit(a_task(prompt="child")).result(timeout=SOON).text)

    parents, childs = posts(engine, 2)
    assert text != ""
    assert childs.json["prompt"] == "child"
    assert childs.connection != parents.connection
    assert adapter.submit(a_task()).result(timeout=SOON).error is None


@forks
def test_parents_stream_is_dead_in_the_child(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """In the child it yields AdapterClosed at once; in the parent it goes on."""
    engine.script(Text("a"), Text("b"), Wait(gate), *answer("c"))
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    def drain() -> list[Any]:
        with stopwatch() as watch:
            events = list(stream)
        return [kinds(events), type(the_error(events)).__name__, watch.seconds < 1]

    assert in_a_child(drain) == [["error"], "AdapterClosed", True]
    assert not posts(engine)[0].hung_up.is_set()
    gate.set()
    assert list(stream.text()) == ["b", "c"]


@forks
def test_parents_many_are_dead_in_the_child(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """What `stream_many` runs is over in the child, and the rest is the parent's to run."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    many = adapter.stream_many([a_task(), a_task(), a_task()], in_flight=1)
    assert next(many)[1].type == "started"

    seen = in_a_child(lambda: [event.to_dict() for _, event in many])

    assert [event["type"] for event in seen[-1:]] == ["error"]
    assert seen[-1]["error"]["error"] == "AdapterClosed"
    assert len(posts(engine, 1)) == 1
    gate.set()
    assert kinds(event for _, event in many).count("end") == 3


@forks
def test_child_may_drop_and_close_what_it_inherited(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """close() and cancel() in the child do nothing to the parent's task."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task(job_id="mine"))
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    def wreck() -> str:
        adapter.cancel("mine")
        stream.cancel()
        stream.close()
        adapter.close()
        return "done"

    assert in_a_child(wreck) == "done"
    assert not posts(engine)[0].hung_up.is_set()
    gate.set()
    assert list(stream.text()) == ["b"]


@forks
def test_fork_while_other_threads_work(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A lock that another thread held at the fork does not stop the child."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            adapter.submit(a_task(max_tokens=1)).result(timeout=SOON)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        reasons = [
            in_a_child(lambda: adapter.submit(a_task()).result(timeout=SOON).finish_reason)
            for _ in range(8)
        ]
    finally:
        stop.set()
        for worker in workers:
            worker.join(SOON)

    assert reasons == ["length"] * 8


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
    assert watch.seconds < 2
    assert all(post.hung_up.wait(SOON) for post in posts(engine, 3))


def test_exit_code_with_live_streams(engine: FakeEngine) -> None:
    """A program that leaves by an exception keeps its exit code and is not held up either."""
    child = run_with_live_streams(engine, "raise SystemExit(3)")
    with child, stopwatch() as watch:
        _, stderr = child.communicate(timeout=20)

    assert (child.returncode, stderr) == (3, "")
    assert watch.seconds < 2


def test_keyboard_interrupt_in_the_loop(engine: FakeEngine) -> None:
    """Ctrl-C reaches a caller who waits for an event, and the program ends."""
    child = run_with_live_streams(engine, "for event in streams[0]: pass")
    with child, stopwatch() as watch:
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=20)

    assert (child.returncode, stdout, stderr) == (0, "interrupted\n", "")
    assert watch.seconds < 2
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
