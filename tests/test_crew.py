"""Worker threads: started as needed, kept for a moment."""

from __future__ import annotations

import functools
import queue
import threading
import weakref
from collections.abc import Iterator

import pytest
import support
from support import SOON, wait_until

from vllm_http import CapacityExceeded, _crew
from vllm_http._crew import Crew


gate = support.gate


@pytest.fixture
def crew() -> Iterator[Crew]:
    """A crew that is closed in the end."""
    crew = Crew()
    yield crew
    crew.close(SOON)


def workers() -> set[threading.Thread]:
    """The worker threads that live."""
    return {thread for thread in threading.enumerate() if thread.name == "vllm_http-worker"}


def busy(crew: Crew, count: int, until: threading.Event) -> None:
    """Give the crew jobs that all run at once."""
    started = threading.Barrier(count + 1)

    def job() -> None:
        started.wait(SOON)
        until.wait(SOON)

    for _ in range(count):
        crew.run(job)
    started.wait(SOON)


def test_jobs_run_at_once(crew: Crew, gate: threading.Event) -> None:
    """However many there are: none waits for another."""
    busy(crew, 20, gate)

    assert len(workers()) == 20
    gate.set()


def test_idle_thread_takes_the_next_job(crew: Crew) -> None:
    """A new thread for each task would cost more than the task's request."""
    ran_on: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    crew.run(lambda: ran_on.put(threading.current_thread()))
    first = ran_on.get(timeout=SOON)
    wait_until(lambda: len(crew._idle) == 1)

    crew.run(lambda: ran_on.put(threading.current_thread()))

    assert ran_on.get(timeout=SOON) is first


def test_idle_threads_end_after_a_moment(crew: Crew) -> None:
    """A service at rest keeps none."""
    crew.run(lambda: None)

    wait_until(lambda: not workers())


def test_few_idle_threads_are_kept(crew: Crew, gate: threading.Event) -> None:
    """Hundreds that ran out of patience at once would stop all streams for a moment."""
    busy(crew, 20, gate)

    gate.set()

    wait_until(lambda: len(workers()) <= _crew._MOST_IDLE)


def test_close_waits_for_jobs(gate: threading.Event) -> None:
    """And for no longer than it was told to."""
    crew = Crew()
    busy(crew, 2, gate)

    crew.close(0.01)
    assert len(workers()) == 2

    gate.set()
    crew.close(SOON)
    assert not workers()


def test_close_lets_idle_threads_go() -> None:
    """At once, not after their moment."""
    crew = Crew()
    crew.run(lambda: None)
    wait_until(lambda: len(crew._idle) == 1)

    crew.close(SOON)

    assert not workers()


def test_no_thread_is_to_be_had(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller hears of it, and the crew goes on with what it has."""

    def none(name: str, *args: object) -> threading.Thread:
        raise CapacityExceeded("no thread to be had")

    with monkeypatch.context() as patched:
        patched.setattr(_crew, "start_thread", none)
        with pytest.raises(CapacityExceeded):
            crew.run(lambda: None)
    done = threading.Event()
    crew.run(done.set)

    assert done.wait(SOON)


class Thing:
    """What a job holds."""


def test_job_is_let_go_when_it_is_done(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for the next one keeps nothing of it alive: a task, its prompt."""
    monkeypatch.setattr(_crew, "_KEPT", 60.0)
    things = [Thing(), Thing()]
    kept = [weakref.ref(thing) for thing in things]
    done = [threading.Event(), threading.Event()]

    for event in done:
        crew.run(functools.partial(lambda event, thing: event.set(), event, things.pop()))
        assert event.wait(SOON)

    wait_until(lambda: [ref() for ref in kept] == [None, None])
