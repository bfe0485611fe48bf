"""The network breaks in mid-stream: what comes of the stream, and that the adapter lives on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from network.net import BOTH_WAYS, FROM_CLIENT, FROM_ENGINE, Network
from network.report import Report
from network.story import CLOCK, LONG, WORDS, Begun, adapter_to, check_works, ending
from support import SOON, stopwatch, wait_until

from vllm_http import Token


Break = Callable[[Network], None]


def rule(text: str) -> Break:
    """A rule for the packets that pass."""
    return lambda network: network.rule(text)


def die_unheard(network: Network) -> None:
    """The engine's last words get lost, so that the connection is half-open."""
    network.rule(f"{BOTH_WAYS} drop")
    network.host.kill()


def live_again(network: Network) -> None:
    """Another engine takes its place."""
    network.host.start()
    network.heal()


@dataclass(frozen=True)
class Case:
    """Something that breaks.

    Attributes:
        name: What.
        strike: Breaks it.
        sees: How the stream ends.
        mend: Mends it.
    """

    name: str
    strike: Break
    sees: str
    mend: Break = Network.heal

    def __str__(self) -> str:
        return self.name


# An ICMP error says nothing final to a connection that stands: it is TCP's to try on.
CASES = [
    Case("packets to the engine dropped", rule(f"{FROM_CLIENT} drop"), "Timeout stall"),
    Case("packets to the client dropped", rule(f"{FROM_ENGINE} drop"), "Timeout stall"),
    Case("all packets dropped", rule(f"{BOTH_WAYS} drop"), "Timeout stall"),
    Case(
        "the client is sent a reset", rule(f"{FROM_CLIENT} reject with tcp reset"), "StreamingError"
    ),
    Case(
        "only the engine is sent a reset",
        rule(f"{FROM_ENGINE} reject with tcp reset"),
        "Timeout stall",
    ),
    Case(
        "ICMP host unreachable",
        rule(f"{FROM_CLIENT} reject with icmp type host-unreachable"),
        "Timeout stall",
    ),
    Case(
        "ICMP port unreachable",
        rule(f"{FROM_CLIENT} reject with icmp type port-unreachable"),
        "Timeout stall",
    ),
    Case(
        "the engine's link goes down",
        lambda network: network.link("down", engines=True),
        "Timeout stall",
        lambda network: network.link("up", engines=True),
    ),
    Case(
        "our own link goes down",
        lambda network: network.link("down", engines=False),
        "Timeout stall",
        lambda network: network.link("up", engines=False),
    ),
    Case("the engine dies unheard", die_unheard, "Timeout stall", live_again),
    Case("the engine's host vanishes", Network.vanish, "Timeout stall", Network.come_back),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_broken_in_mid_stream(case: Case, network: Network, report: Report) -> None:
    """The stream ends with the right error by its clock, all words that came are there, once."""
    with adapter_to(network) as adapter:
        begun = Begun(network, adapter)
        case.strike(network)
        seen = begun.rest()
        report.add(f"mid-stream: {case}", ending(seen), seen.seconds)

        assert ending(seen) == case.sees
        assert seen.seconds < CLOCK + SOON
        case.mend(network)
        check_works(network, adapter)


def test_short_break(network: Network, report: Report) -> None:
    """A network that is back before the clock runs out costs nothing but time."""
    with adapter_to(network, LONG) as adapter:
        begun = Begun(network, adapter)
        network.rule(f"{BOTH_WAYS} counter drop")
        wait_until(lambda: network.dropped >= 3)
        network.heal()
        with stopwatch() as watch:
            events = [*begun.first, *(next(begun.stream) for _ in range(100))]
        report.add("mid-stream: all dropped for a moment", "100 tokens", watch.seconds)

        assert [e.text for e in events if isinstance(e, Token)] == WORDS[: len(events) - 1]
