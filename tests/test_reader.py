"""The one thread that reads all answers of an adapter and rings all its alarms."""

from __future__ import annotations

import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from support import SOON

from vllm_http import _bell
from vllm_http._reader import _BUSY, Loop, Reader


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
    """A reader."""
    reader = Reader()
    yield reader
    reader.stop(SOON)


@pytest.fixture
def loop(reader: Reader) -> Loop:
    """It runs."""
    return reader.start()


def test_alarm_rings_at_its_time(loop: Loop) -> None:
    """Never before."""
    bell = Bell()
    due = time.monotonic() + 0.05

    loop.at(due, bell.ring)

    assert bell.rung.wait(SOON)
    assert bell.times[0] >= due


def test_alarms_ring_in_the_order_of_their_times(loop: Loop) -> None:
    """Whichever was set first."""
    late, early = Bell(), Bell()
    now = time.monotonic()

    loop.at(now + 0.1, late.ring)
    loop.at(now + 0.05, early.ring)

    assert late.rung.wait(SOON)
    assert early.times < late.times


def test_alarm_may_ask_to_ring_again(loop: Loop) -> None:
    """It says when."""
    again = iter([0.01, 0.01])
    bell = Bell(lambda now: now + next(again) if len(bell.times) < 3 else None)

    loop.at(time.monotonic(), bell.ring)

    assert bell.rung.wait(SOON)
    assert len(bell.times) == 3


def test_failing_alarm_stops_no_other(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """One task's bug is logged and costs the others nothing."""
    broken, sound = Bell(lambda now: 1 / 0), Bell()

    loop.at(time.monotonic(), broken.ring)
    loop.at(time.monotonic() + 0.05, sound.ring)

    assert sound.rung.wait(SOON)
    assert "an alarm failed" in caplog.text


def test_alarm_of_what_is_gone_does_not_ring(loop: Loop) -> None:
    """An alarm keeps nothing alive."""
    times: list[float] = []
    gone, last = Bell(times.append), Bell()
    now = time.monotonic()
    loop.at(now + 0.05, gone.ring)
    loop.at(now + 0.1, last.ring)

    del gone

    assert last.rung.wait(SOON)
    assert times == []


def test_many_alarms_of_what_is_gone_are_swept(loop: Loop) -> None:
    """Tasks that end long before their time leave nothing that grows; others still ring."""
    last = Bell()
    for _ in range(5000):
        loop.at(time.monotonic() + 3600, Bell().ring)

    loop.at(time.monotonic() + 0.05, last.ring)

    assert last.rung.wait(SOON)


def test_soon_is_called_by_the_reader(loop: Loop) -> None:
    """Whoever asks does not wait for it, nor for any lock."""
    callers: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()

    loop.soon(lambda: callers.put(threading.current_thread()))

    assert callers.get(timeout=SOON) is not threading.current_thread()


def test_reader_that_is_dropped_ends_its_thread() -> None:
    """Without stop() too; the thread holds nothing but its messages."""
    before = set(threading.enumerate())
    reader = Reader()
    reader.start()
    (thread,) = set(threading.enumerate()) - before

    del reader

    thread.join(SOON)
    assert not thread.is_alive()


class Watched:
    """Reads a socket, and notes what came."""

    def __init__(self, loop: Loop) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.left = threading.Event()
        self.crashed_with: BaseException | None = None
        self.bell = _bell.Bell()
        self._loop = loop

    def watch(self) -> None:
        self._loop.soon(lambda: self._loop.watch(self.near.fileno(), self))

    def unwatch(self) -> None:
        done = threading.Event()
        self._loop.soon(lambda: self._loop.unwatch(self.near.fileno()))
        self._loop.soon(done.set)
        assert done.wait(SOON)

    def ready(self) -> _bell.Bell:
        self.came.put(self.near.recv(100))
        return self.bell

    def leave(self) -> None:
        self.left.set()

    def crash(self, failure: BaseException) -> None:
        self.crashed_with = failure

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def watch(reader: Reader, loop: Loop) -> Iterator[Callable[[], Watched]]:
    """Makes sockets that are watched."""
    made: list[Watched] = []

    def make() -> Watched:
        watched = Watched(loop)
        made.append(watched)
        watched.watch()
        return watched

    yield make
    reader.stop(SOON)
    for watched in made:
        watched.close()


def test_what_arrives_is_read_and_its_caller_woken(watch: Callable[[], Watched]) -> None:
    """Read first, then rung."""
    watched = watch()

    watched.far.send(b"a")

    watched.bell.wait(SOON)
    assert watched.came.get_nowait() == b"a"


def test_what_is_not_watched_is_not_read(watch: Callable[[], Watched]) -> None:
    """It waits in the socket until it is watched again."""
    watched, other = watch(), watch()
    watched.unwatch()
    watched.far.send(b"a")
    other.far.send(b"b")
    assert other.came.get(timeout=SOON) == b"b"
    assert watched.came.empty()

    watched.watch()

    assert watched.came.get(timeout=SOON) == b"a"


def test_many_that_arrive_at_once_are_all_read(watch: Callable[[], Watched]) -> None:
    """Round after round, each caller woken each time."""
    all_watched = [watch() for _ in range(4 * _BUSY)]

    for number in range(50):
        for watched in all_watched:
            watched.far.send(b"%d" % number)
        for watched in all_watched:
            watched.bell.wait(SOON)
            assert watched.came.get(timeout=SOON) == b"%d" % number


@pytest.mark.parametrize("callers", [0, 1, 3])
def test_what_is_left_for_afterwards_is_done(
    loop: Loop, watch: Callable[[], Watched], callers: int
) -> None:
    """Whether many callers are woken before, or one, or nobody."""
    all_watched = [watch() for _ in range(callers)]
    done = threading.Event()

    def send_and_ask() -> None:
        for watched in all_watched:
            watched.far.send(b"a")
        loop.afterwards(done.set)

    loop.soon(send_and_ask)

    assert done.wait(SOON)
    for watched in all_watched:
        watched.bell.wait(SOON)


def test_what_is_left_is_done_though_more_keeps_coming(
    loop: Loop, watch: Callable[[], Watched]
) -> None:
    """Tokens come first, but not for ever."""
    all_watched = [watch() for _ in range(2 * _BUSY)]
    done = threading.Event()

    until = time.monotonic() + SOON

    loop.soon(lambda: loop.afterwards(done.set))
    while not done.is_set() and time.monotonic() < until:
        for watched in all_watched:
            watched.far.send(b"a")
        for watched in all_watched:
            watched.bell.wait(SOON)

    assert done.is_set()


def test_what_is_said_after_the_end_is_forgotten(reader: Reader, loop: Loop) -> None:
    """A message would keep its task alive for ever, and that the reader and its descriptors."""
    reader.stop(SOON)
    event = threading.Event()
    left = weakref.ref(event)

    loop.soon(event.set)
    del event

    assert left() is None


def test_failing_call_stops_no_other(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one task is logged, and the others go on."""
    done = threading.Event()

    loop.soon(lambda: 1 / 0)
    loop.soon(done.set)

    assert done.wait(SOON)
    assert "a message to the reader failed" in caplog.text


def test_stop_tells_those_that_are_watched(reader: Reader, watch: Callable[[], Watched]) -> None:
    """They let go of what they hold."""
    watched = watch()

    reader.stop(SOON)

    assert watched.left.is_set()
