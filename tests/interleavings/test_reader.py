"""The reader's mailbox, alarms, start and stop, under every schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import _alarms, _bell, _reader, _threads
from vllm_http._reader import Reader


ALSO = (_bell, _threads)

SOON = 1001.0
"""When what should come at once has come."""


class Clock:
    """Tells when it rang."""

    def __init__(self, world: World) -> None:
        self.rang: list[float] = []
        self._world = world

    def ring(self, now: float) -> float | None:
        """As an alarm."""
        self.rang.append(self._world.now)
        return None


def test_each_message_is_taken() -> None:
    """At once, though it be left as the thread falls asleep."""

    def leave_messages(world: World) -> Callable[[], None]:
        reader = Reader()
        loop = reader.start()
        heard: list[int] = []

        def leave(number: int) -> None:
            loop.soon(lambda: heard.append(number))
            world.block(lambda: number in heard)

        world.thread("a", lambda: leave(0))
        world.thread("b", lambda: leave(1))

        # Its default keeps the reader, which ends its thread when it is dropped.
        def check(reader: Reader = reader) -> None:
            assert sorted(heard) == [0, 1]
            assert world.now < SOON

        return check

    explore(leave_messages, _reader, also=(_alarms, *ALSO), preemptions=BOUND - 1)


def test_message_to_a_thread_that_falls_asleep() -> None:
    """The same for one message, under more preemptions."""

    def leave_one(world: World) -> Callable[[], None]:
        reader = Reader()
        loop = reader.start()
        heard: list[int] = []

        def leave() -> None:
            loop.soon(lambda: heard.append(1))
            world.block(lambda: bool(heard))

        world.thread("a", leave)

        # Its default keeps the reader, which ends its thread when it is dropped.
        def check(reader: Reader = reader) -> None:
            assert world.now < SOON

        return check

    explore(leave_one, _reader, also=(_alarms, *ALSO))


def test_earlier_alarm() -> None:
    """It rings in time, though the thread sleeps, or will, until a later one."""

    def set_alarms(world: World) -> Callable[[], None]:
        reader = Reader()
        loop = reader.start()
        clocks = [Clock(world), Clock(world)]

        def order(number: int, seconds: float) -> None:
            loop.at(1000 + seconds, clocks[number].ring)
            world.block(lambda: bool(clocks[number].rang))

        world.thread("late", lambda: order(0, 20))
        world.thread("early", lambda: order(1, 10))

        # Its default keeps the reader, which ends its thread when it is dropped.
        def check(reader: Reader = reader) -> None:
            assert [[int(when) for when in clock.rang] for clock in clocks] == [[1020], [1010]]

        return check

    explore(set_alarms, _reader, _alarms, also=ALSO, preemptions=BOUND - 1)


def test_stop() -> None:
    """What was asked for before it is done, and the thread ends."""

    def ask_and_stop(world: World) -> Callable[[], None]:
        reader = Reader()
        loop = reader.start()
        done: list[int] = []

        def stop() -> None:
            loop.soon(lambda: done.append(1))
            reader.stop(100)

        world.thread("closer", stop)
        world.thread("other", lambda: loop.soon(lambda: done.append(2)))

        # Its default keeps the reader, which ends its thread when it is dropped.
        def check(reader: Reader = reader) -> None:
            assert 1 in done
            assert world.left == []
            assert world.now < SOON

        return check

    explore(ask_and_stop, _reader, also=(_alarms, *ALSO), preemptions=BOUND - 1, turns=1)


@pytest.mark.parametrize("others", [0, 1])
def test_start_that_is_interrupted(others: int) -> None:
    """A ctrl-C in the first start leaves one reader at most, and it works after the next start."""

    def interrupt_start(world: World) -> Callable[[], None]:
        reader = Reader()
        heard: list[int] = []
        used: list[bool] = []

        def begin() -> None:
            reader.start()

        def use() -> None:
            reader.start().soon(lambda: heard.append(1))
            world.block(lambda: bool(heard))
            used.append(True)

        def begin_and_use() -> None:
            try:
                begin()
            finally:
                world.interrupts.clear()
                use()
                world.block(lambda: len(used) == 1 + others)
                reader.stop(100)

        first = world.thread("first", begin_and_use, may_raise=(KeyboardInterrupt,))
        world.interrupt("first")
        for number in range(others):
            world.thread(f"other {number}", use)

        # Its default keeps the reader, which ends its thread when it is dropped.
        def check(reader: Reader = reader) -> None:
            assert world.left == []
            assert world.now < SOON
            assert first.raised is None or "interrupt" in str(world.plan)

        return check

    explore(
        interrupt_start, _reader, also=(_alarms, *ALSO), preemptions=BOUND - 1, turns=1 - others
    )


def test_collection_in_the_reader() -> None:
    """A finalizer that leaves a message, at any step of the reader's."""

    def collect_in_reader(world: World) -> Callable[[], None]:
        reader = Reader()
        loop = reader.start()
        heard: list[str] = []
        left: list[bool] = []

        def finalize() -> None:
            left.append(True)
            loop.soon(lambda: heard.append("finalizer's"))

        world.collect("reader-0", finalize)

        def leave() -> None:
            loop.soon(lambda: heard.append("caller's"))
            world.block(lambda: "caller's" in heard and len(heard) == 1 + len(left))

        world.thread("caller", leave)

        # Its default keeps the reader, which ends its thread when it is dropped.
        def check(reader: Reader = reader) -> None:
            assert world.now < SOON

        return check

    explore(collect_in_reader, _reader, also=(_alarms, *ALSO), preemptions=BOUND - 1)
