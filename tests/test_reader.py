"""The one thread that rings all alarms of an adapter."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import SOON

from vllm_http._reader import Reader


class Bell:
    """Rings at its time, and notes it."""

    def __init__(self, answer: Callable[[float], float | None] = lambda now: None) -> None:
        self.rung = threading.Event()
        self.times: list[float] = []
        self._answer = answer

    def ring(self, now: float) -> float | None:
        self.times.append(now)
        again = self._answer(now)
        if again is None:
            self.rung.set()
        return again


@pytest.fixture
def reader() -> Iterator[Reader]:
    """A reader that runs."""
    reader = Reader()
    reader.start()
    yield reader
    reader.stop(SOON)


def test_alarm_rings_at_its_time(reader: Reader) -> None:
    """Never before."""
    bell = Bell()
    due = time.monotonic() + 0.05

    reader.at(due, bell.ring)

    assert bell.rung.wait(SOON)
    assert bell.times[0] >= due


def test_alarms_ring_in_the_order_of_their_times(reader: Reader) -> None:
    """Whichever was set first."""
    late, early = Bell(), Bell()
    now = time.monotonic()

    reader.at(now + 0.1, late.ring)
    reader.at(now + 0.05, early.ring)

    assert late.rung.wait(SOON)
    assert early.times < late.times


def test_alarm_may_ask_to_ring_again(reader: Reader) -> None:
    """It says when."""
    again = iter([0.01, 0.01])
    bell = Bell(lambda now: now + next(again) if len(bell.times) < 3 else None)

    reader.at(time.monotonic(), bell.ring)

    assert bell.rung.wait(SOON)
    assert len(bell.times) == 3


def test_failing_alarm_stops_no_other(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """One task's bug is logged and costs the others nothing."""
    broken, sound = Bell(lambda now: 1 / 0), Bell()

    reader.at(time.monotonic(), broken.ring)
    reader.at(time.monotonic() + 0.05, sound.ring)

    assert sound.rung.wait(SOON)
    assert "an alarm failed" in caplog.text


def test_alarm_of_what_is_gone_does_not_ring(reader: Reader) -> None:
    """An alarm keeps nothing alive."""
    times: list[float] = []
    gone, last = Bell(times.append), Bell()
    now = time.monotonic()
    reader.at(now + 0.05, gone.ring)
    reader.at(now + 0.1, last.ring)

    del gone

    assert last.rung.wait(SOON)
    assert times == []


def test_many_alarms_of_what_is_gone_are_swept(reader: Reader) -> None:
    """Tasks that end long before their time leave nothing that grows; others still ring."""
    last = Bell()
    for _ in range(5000):
        reader.at(time.monotonic() + 3600, Bell().ring)

    reader.at(time.monotonic() + 0.05, last.ring)

    assert last.rung.wait(SOON)


def test_soon_is_called_by_the_reader(reader: Reader) -> None:
    """Whoever asks does not wait for it, nor for any lock."""
    callers: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()

    reader.soon(lambda: callers.put(threading.current_thread()))

    assert callers.get(timeout=SOON) is not threading.current_thread()


def test_clock_that_is_dropped_ends_its_thread() -> None:
    """Without stop() too; the thread holds nothing but its messages."""
    before = set(threading.enumerate())
    reader = Reader()
    reader.start()
    (thread,) = set(threading.enumerate()) - before

    del reader

    thread.join(SOON)
    assert not thread.is_alive()
