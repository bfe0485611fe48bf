"""Bells and their chain, under every schedule: whoever waits is woken, whatever befalls another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import _bell
from vllm_http._bell import Bell, Chain


PATIENT = 1.0
"""Seconds; a wake-up that takes longer has not come."""


def ring_all(world: World, bells: list[Bell], rounds: int = 1) -> Callable[[], None]:
    """What the reader's thread does: ring, and look after the chain until it is done."""

    def ring() -> None:
        chain = Chain()
        for _ in range(rounds):
            chain.ring(bells)
            while not chain.done:
                chain.mend()
                world.block(lambda: False, 0.01)

    return ring


@pytest.mark.parametrize("callers", [1, 2])
def test_all_who_wait_wake(callers: int) -> None:
    """Each, in the first moment, whenever it begins to wait."""

    def ring_waiting(world: World) -> Callable[[], None]:
        bells = [Bell() for _ in range(callers)]
        for number, bell in enumerate(bells):
            world.thread(f"caller {number}", bell.wait)
        world.thread("reader", ring_all(world, bells))

        def check() -> None:
            assert world.now < 1000 + PATIENT

        return check

    explore(ring_waiting, _bell, preemptions=BOUND + 1 - callers)


def test_callers_who_leave_in_time() -> None:
    """One whose time is up as the chain comes to it does not keep it from the next."""

    def ring_leaving(world: World) -> Callable[[], None]:
        bells = [Bell(), Bell()]
        world.thread("caller 0", lambda: bells[0].wait(0.5))
        world.thread("caller 1", bells[1].wait)
        world.thread("reader", ring_all(world, bells))

        def check() -> None:
            assert world.now < 1000 + PATIENT

        return check

    explore(ring_leaving, _bell, preemptions=BOUND - 1)


def test_two_rounds() -> None:
    """A ring that comes while the chain of the round before is under way is heard too."""

    def ring_twice(world: World) -> Callable[[], None]:
        bells = [Bell(), Bell()]
        rung = [0]

        def ring() -> None:
            chain = Chain()
            for _ in range(2):
                rung[0] += 1
                chain.ring(bells)
            while not chain.done:
                chain.mend()
                world.block(lambda: False, 0.01)

        def hear(bell: Bell) -> None:
            while rung[0] < 2:
                bell.wait()

        for number, bell in enumerate(bells):
            world.thread(f"caller {number}", partial(hear, bell))
        world.thread("reader", ring)

        def check() -> None:
            assert world.now < 1000 + PATIENT

        return check

    explore(ring_twice, _bell, preemptions=BOUND - 1)


@pytest.mark.parametrize("interrupted", ["caller 0", "caller 1"])
def test_caller_who_is_interrupted(interrupted: str) -> None:
    """A ctrl-C at any step of one caller's wait leaves no other asleep."""

    def interrupt_one(world: World) -> Callable[[], None]:
        bells = [Bell(), Bell()]
        for number, bell in enumerate(bells):
            world.thread(f"caller {number}", bell.wait, may_raise=(KeyboardInterrupt,))
        world.interrupt(interrupted)
        world.thread("reader", ring_all(world, bells))

        def check() -> None:
            assert world.now < 1000 + PATIENT

        return check

    explore(interrupt_one, _bell, preemptions=BOUND - 1, turns=1)


def test_reader_that_is_hit() -> None:
    """An exception in the thread that rings: those it had taken are rung in its next round."""

    def hit_reader(world: World) -> Callable[[], None]:
        bells = [Bell(), Bell()]
        for number, bell in enumerate(bells):
            world.thread(f"caller {number}", bell.wait)

        chain = Chain()

        def ring() -> None:
            chain.ring(bells)
            while not chain.done:
                chain.mend()
                world.block(lambda: False, 0.01)

        def ring_anyway() -> None:
            try:
                ring()
            except MemoryError:
                ring()  # the reader keeps those of a round until `Chain.ring` has returned

        world.thread("reader", ring_anyway)
        world.interrupt("reader", MemoryError)

        def check() -> None:
            assert world.now < 1000 + PATIENT

        return check

    explore(hit_reader, _bell, preemptions=0)
