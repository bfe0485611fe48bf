"""How callers are woken: one by a bell, many by a chain of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import SOON, stopwatch

from vllm_http._bell import Bell, Chain


class Caller:
    """A thread that waits at its bell, again and again, and tells of each time it woke."""

    def __init__(self, name: str, heard: queue.SimpleQueue[str]) -> None:
        self.bell = Bell()
        self._name = name
        self._heard = heard
        self._over = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while True:
            self.bell.wait()
            if self._over:
                return
            self._heard.put(self._name)

    def dismiss(self) -> None:
        """Let the thread end."""
        self._over = True
        self.bell.ring()
        self._thread.join(SOON)
        assert not self._thread.is_alive()


@pytest.fixture
def heard() -> queue.SimpleQueue[str]:
    """Who woke, in order."""
    return queue.SimpleQueue()


@pytest.fixture
def call(heard: queue.SimpleQueue[str]) -> Iterator[Callable[[str], Caller]]:
    """Makes callers, and lets them go in the end."""
    callers: list[Caller] = []

    def make(name: str) -> Caller:
        callers.append(Caller(name, heard))
        return callers[-1]

    yield make
    for caller in callers:
        caller.dismiss()


def test_ring_wakes_who_waits(call: Callable[[str], Caller], heard: queue.SimpleQueue[str]) -> None:
    """One ring, one wake-up."""
    caller = call("a")

    caller.bell.ring()

    assert heard.get(timeout=SOON) == "a"


def test_ring_is_kept_for_who_waits_next() -> None:
    """A caller that was busy when it rang does not sleep over what has come."""
    bell = Bell()

    bell.ring()
    bell.ring()

    with stopwatch() as watch:
        bell.wait(SOON)
    assert watch.seconds < SOON / 2


def test_two_rings_are_one() -> None:
    """It is a bell, no counter: whoever hears it takes all that has come."""
    bell = Bell()
    bell.ring()
    bell.ring()
    bell.wait(SOON)

    with stopwatch() as watch:
        bell.wait(0.05)

    assert watch.seconds >= 0.05


def test_chain_wakes_all(call: Callable[[str], Caller], heard: queue.SimpleQueue[str]) -> None:
    """Each caller once, whichever order the system gives them."""
    callers = [call(str(n)) for n in range(20)]

    Chain().ring(caller.bell for caller in callers)

    assert {heard.get(timeout=SOON) for _ in callers} == {str(n) for n in range(20)}


def test_chain_passes_over_bells_that_nobody_waits_at(
    call: Callable[[str], Caller], heard: queue.SimpleQueue[str]
) -> None:
    """They stay rung, and those behind them are woken all the same."""
    first, last, busy = call("first"), call("last"), Bell()
    chain = Chain()

    chain.ring([busy, first.bell, busy, last.bell])

    assert {heard.get(timeout=SOON), heard.get(timeout=SOON)} == {"first", "last"}
    assert chain.done
    busy.wait(SOON)


def test_chain_goes_on_behind_what_is_left(
    call: Callable[[str], Caller], heard: queue.SimpleQueue[str]
) -> None:
    """No ring is lost where many rounds follow one another."""
    callers = [call(str(n)) for n in range(8)]
    chain = Chain()

    for _ in range(200):
        chain.ring([caller.bell for caller in callers])
        woken = {heard.get(timeout=SOON)}
        until = time.monotonic() + SOON
        while len(woken) < len(callers) and time.monotonic() < until:
            woken.add(heard.get(timeout=SOON))
        assert len(woken) == len(callers)


class Unheard(Bell):
    """Somebody waits at it, and an exception hits them before they go on with the chain."""

    def ring_in(self, chain: Chain) -> bool:
        self.ring()
        return True


def test_broken_chain_is_mended(
    call: Callable[[str], Caller], heard: queue.SimpleQueue[str]
) -> None:
    """Whoever was to go on did not; the others are woken after a moment."""
    chain = Chain()
    chain.ring([Unheard(), call("a").bell, call("b").bell])
    assert not chain.done

    while not chain.done:
        chain.mend()

    assert {heard.get(timeout=SOON), heard.get(timeout=SOON)} == {"a", "b"}


def test_chain_that_goes_on_is_not_mended() -> None:
    """A slow step is not yet a broken chain."""
    chain = Chain()
    chain.ring([Unheard(), Unheard(), Bell()])

    chain.mend()

    assert not chain.done
