"""The explorer itself: it finds the known faults of toy machines, in known numbers of schedules."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import groupby, permutations

import pytest
from exploring.managed import Failed
from exploring.schedules import explore
from exploring.world import World


HERE = sys.modules[__name__]


def preemptions(order: tuple[str, ...]) -> int:
    """Switches away from a thread that had not ended."""
    blocks = [name for name, _ in groupby(order)]
    return len(blocks) - len(set(blocks))


@pytest.mark.parametrize("bound", range(5))
def test_each_order_comes_once(bound: int) -> None:
    """All orders of two threads of three lines each that have so many preemptions, and no more."""
    seen: list[tuple[str, ...]] = []

    def three_lines_each(world: World) -> Callable[[], None]:
        log: list[str] = []

        def body(name: str) -> None:
            log.append(name)
            log.append(name)
            log.append(name)

        world.thread("a", partial(body, "a"))
        world.thread("b", partial(body, "b"))
        return lambda: seen.append(tuple(log))

    count = explore(three_lines_each, HERE, preemptions=bound)

    orders = {order for order in permutations("aaabbb") if preemptions(order) <= bound}
    assert set(seen) == orders
    assert len(seen) == count == len(orders)


def test_lost_update() -> None:
    """Two threads read before either writes: one preemption."""

    def count_up(world: World) -> Callable[[], None]:
        counter = [0]

        def body() -> None:
            value = counter[0]
            counter[0] = value + 1

        world.thread("a", body)
        world.thread("b", body)

        def check() -> None:
            assert counter == [2]

        return check

    explore(count_up, HERE, preemptions=0)
    with pytest.raises(Failed, match="assert \\[1\\] == \\[2\\]"):
        explore(count_up, HERE, preemptions=1)


def test_lost_update_within_a_line() -> None:
    """Seen between the instructions of one line, where Python might switch some day."""

    def count_up(world: World) -> Callable[[], None]:
        class Counter:
            value = 0

        def body() -> None:
            Counter.value += 1

        world.thread("a", body)
        world.thread("b", body)

        def check() -> None:
            assert Counter.value == 2

        return check

    explore(count_up, HERE, preemptions=2)
    with pytest.raises(Failed, match="assert 1 == 2"):
        explore(count_up, HERE, preemptions=1, fine=True)


def test_deadlock_of_two_locks() -> None:
    """Taken in two orders; the failure tells where each thread stands."""

    def opposite_orders(world: World) -> Callable[[], None]:
        one, other = threading.Lock(), threading.Lock()
        log: list[str] = []

        def body(first: threading.Lock, second: threading.Lock) -> None:
            with first:
                log.append("both wait")
                with second:
                    log.append("both were taken")

        world.thread("a", partial(body, one, other))
        world.thread("b", partial(body, other, one))
        return lambda: None

    explore(opposite_orders, HERE, preemptions=0)
    with pytest.raises(Failed, match=r"(?s)deadlock.*a:.*with second:.*b:.*with second:"):
        explore(opposite_orders, HERE, preemptions=1)


def sleeper(world: World) -> Callable[[], None]:
    """Looks before it waits, and clears what it waits for after it has looked."""
    items: deque[int] = deque()
    rung = threading.Event()

    def consume() -> None:
        while not items:
            rung.clear()
            rung.wait()

    def produce() -> None:
        items.append(1)
        rung.set()

    world.thread("consumer", consume)
    world.thread("producer", produce)
    return lambda: None


def test_lost_wake_up() -> None:
    """The ring falls between the look and the wait; what failed can be run again by itself."""
    explore(sleeper, HERE, preemptions=0)
    with pytest.raises(Failed, match="deadlock") as failure:
        explore(sleeper, HERE, preemptions=1)

    plan = failure.value.plan
    assert len(plan) == 1
    with pytest.raises(Failed, match="deadlock"):
        explore(sleeper, HERE, only=plan)


def test_livelock() -> None:
    """Two threads that wait for each other without blocking."""

    def polite(world: World) -> Callable[[], None]:
        turn = ["nobody"]

        def body(name: str) -> None:
            while turn[0] != name:
                pass

        world.thread("a", partial(body, "a"))
        return lambda: None

    with pytest.raises(Failed, match="livelock"):
        explore(polite, HERE)


def test_time_passes_at_any_moment() -> None:
    """A wait that ends in time ends before, or after, whatever another thread does."""
    seen = set()

    def in_time(world: World) -> Callable[[], None]:
        rung = threading.Event()
        heard: list[bool] = []
        world.thread("waits", lambda: heard.append(rung.wait(5)))
        world.thread("rings", lambda: rung.set())
        return lambda: seen.add((*heard, world.now > 1004))

    explore(in_time, HERE, preemptions=1)

    assert seen == {(True, False), (False, True), (True, True)}


def test_interrupt_after_each_call() -> None:
    """As a signal handler's: after what the call did, and not between a `with` and its lock."""
    seen = set()

    def interrupted(world: World) -> Callable[[], None]:
        lock = threading.Lock()
        log: list[int] = []

        def body() -> None:
            with lock:
                log.append(1)
                log.append(2)

        world.interrupt("a")
        thread = world.thread("a", body, may_raise=(KeyboardInterrupt,))
        return lambda: seen.add((len(log), lock.locked(), thread.raised is not None))

    explore(interrupted, HERE)

    whole = (2, False, False)
    assert seen == {whole, (0, False, True), (1, False, True), (2, False, True)}


def test_collection_at_each_call() -> None:
    """A finalizer that wants a lock that its own thread holds."""

    def finalized(world: World) -> Callable[[], None]:
        lock = threading.Lock()

        def body() -> None:
            with lock:
                time.monotonic()

        world.collect("a", lock.acquire)
        world.thread("a", body)
        return lambda: None

    with pytest.raises(Failed, match="deadlock"):
        explore(finalized, HERE)
    assert explore(finalized, HERE, faults=0) == 1
