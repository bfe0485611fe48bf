"""No connection to the engine comes about, or one of the pool is dead without knowing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from faults.outcome import check_order, watch
from network.net import BOTH_WAYS, FROM_CLIENT, FROM_ENGINE, Network
from network.report import Report
from network.story import (
    CLOCK,
    CONNECT,
    LONG,
    SHORT,
    adapter_to,
    check_works,
    connected_port,
    ending,
)
from support import EARLY, SOON, a_task, answer, wait_until

from vllm_http import End, RetryPolicy, VllmHttpAdapter, _transport_delivery


Change = Callable[[Network], None]

ATTEMPTS = 3
DOWN = ("EngineUnavailable",)


@dataclass(frozen=True)
class Case:
    """Something that keeps connections from coming about.

    Attributes:
        name: What.
        strike: Makes it so.
        sees: How the stream may end.
        due: Seconds after which it does.
        mend: Mends it.
    """

    name: str
    strike: Change
    sees: tuple[str, ...]
    due: float = 0.0
    mend: Change = Network.heal

    def __str__(self) -> str:
        return self.name


def rule(name: str, text: str, sees: tuple[str, ...] = DOWN, due: float = 0.0) -> Case:
    """A case of packets that are treated by this rule."""
    return Case(name, lambda network: network.rule(text), sees, due)


def link(engines: bool, state: str) -> Change:
    """What sets a link's state."""
    return lambda network: network.link(state, engines=engines)


EITHER = ("EngineUnavailable", "Timeout connect")
UNANSWERED = (("Timeout connect",), ATTEMPTS * CONNECT)
CASES = [
    rule("SYN dropped", f"{FROM_CLIENT} drop", *UNANSWERED),
    rule("the answer to SYN dropped", f"{FROM_ENGINE} drop", *UNANSWERED),
    rule("SYN answered by a reset", f"{FROM_CLIENT} reject with tcp reset"),
    rule("ICMP host unreachable", f"{FROM_CLIENT} reject with icmp type host-unreachable"),
    rule("ICMP port unreachable", f"{FROM_CLIENT} reject with icmp type port-unreachable"),
    rule("ICMP prohibited", f"{FROM_CLIENT} reject with icmp type admin-prohibited"),
    Case("the engine's link is down", link(True, "down"), *UNANSWERED, link(True, "up")),
    Case("our own link is down", link(False, "down"), DOWN, 0.0, link(False, "up")),
    # The router sends an ICMP error for the first packets, and then saves itself the trouble.
    Case("the engine's host is gone", Network.vanish, EITHER, 0.0, Network.come_back),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_connection(case: Case, network: Network, report: Report) -> None:
    """The task fails as the network says, once the retries are used up, and never starts."""
    with adapter_to(network) as adapter:
        case.strike(network)
        seen = watch(adapter.submit(a_task()), time.monotonic())
        report.add(f"{ATTEMPTS} connects: {case}", ending(seen), seen.seconds)

        check_order(seen, starts=False)
        assert seen.tokens == []
        assert ending(seen) in case.sees
        assert case.due - EARLY <= seen.seconds < case.due + SOON
        case.mend(network)
        check_works(network, adapter)


@pytest.mark.parametrize("fate", ["drop", "reject with tcp reset"])
def test_network_comes_back_between_attempts(fate: str, network: Network, report: Report) -> None:
    """A task outlives a break of the network in which its first attempts are lost."""
    network.host.script(*answer("a"))
    many = RetryPolicy(attempts=1000, base=0.02, cap=0.02)
    with adapter_to(network, SHORT, many) as adapter:
        network.rule(f"{FROM_CLIENT} counter {fate}")
        since = time.monotonic()
        stream = adapter.submit(a_task())
        wait_until(lambda: network.dropped >= 2)  # by the clock SYN is not sent twice an attempt
        network.heal()
        seen = watch(stream, since)
        report.add(f"connects again: {fate}, then mended", ending(seen), seen.seconds)

        check_order(seen, starts=True)
        assert isinstance(seen.last, End)
        assert seen.text == "a"
        assert seen.last.metrics.attempts > 1


# Connections in the pool.


def keep_one(network: Network, adapter: VllmHttpAdapter) -> None:
    """Have one idle connection in the pool."""
    network.host.script(*answer("kept"))
    assert adapter.submit(a_task()).result(timeout=SOON).text == "kept"
    wait_until(lambda: network.host.ask("open_connections") == 1)  # the version's has gone


def test_engine_has_died_unheard_and_is_back(network: Network, report: Report) -> None:
    """The new engine's system knows nothing of the old connection: the task takes another one."""
    with adapter_to(network) as adapter:
        keep_one(network, adapter)
        network.rule(f"{BOTH_WAYS} drop")
        network.host.kill()
        network.host.start()
        network.heal()
        network.host.script(*answer("new"))
        seen = watch(adapter.submit(a_task()), time.monotonic())
        report.add("half-open in the pool: the engine is back", ending(seen), seen.seconds)

        check_order(seen, starts=True)
        assert isinstance(seen.last, End)
        assert (seen.text, seen.last.metrics.attempts) == ("new", 2)


def fall_silent(network: Network) -> None:
    """All packets are dropped from now on."""
    network.rule(f"{BOTH_WAYS} drop")


GONE = [(fall_silent, Network.heal), (Network.vanish, Network.come_back)]


@pytest.mark.parametrize(("leave", "return_"), GONE)
def test_kept_connection_leads_nowhere(
    leave: Change, return_: Change, network: Network, report: Report
) -> None:
    """Nothing tells it from a busy engine's: the first token's clock ends the task, and it."""
    with adapter_to(network) as adapter:
        keep_one(network, adapter)
        leave(network)
        first = watch(adapter.submit(a_task()), time.monotonic())
        report.add(f"half-open in the pool: {leave.__name__}", ending(first), first.seconds)
        second = watch(adapter.submit(a_task()), time.monotonic())
        report.add("the next task, which has to connect", ending(second), second.seconds)

        check_order(first, starts=False)
        check_order(second, starts=False)
        assert ending(first) == "Timeout first_token"
        assert ending(second) in EITHER
        assert CLOCK - EARLY <= first.seconds < CLOCK + SOON
        return_(network)
        check_works(network, adapter)


@pytest.mark.parametrize("size", [10, 2**24], ids=["small request", "large request"])
def test_kept_connection_is_forgotten(
    size: int, network: Network, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall drops what comes on it, without a word: the task goes out on another one."""
    monkeypatch.setattr(_transport_delivery, "FORGOTTEN_AFTER", CLOCK)
    with adapter_to(network, LONG, RetryPolicy(attempts=1)) as adapter:
        keep_one(network, adapter)
        network.rule(f"{FROM_CLIENT} tcp sport {connected_port()} drop")
        network.host.script(*answer("new"))
        seen = watch(adapter.submit(a_task(prompt="x" * size)), time.monotonic())
        report.add(f"forgotten by a firewall: {size} bytes", ending(seen), seen.seconds)

        assert isinstance(seen.last, End)
        assert (seen.text, seen.last.metrics.attempts) == ("new", 2)
        assert CLOCK - EARLY <= seen.seconds < CLOCK + SOON
