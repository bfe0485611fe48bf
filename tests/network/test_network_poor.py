"""A line that is poor but works: every word comes, once and in its order."""

from __future__ import annotations

import time

import pytest
from faults.outcome import Seen, brief, check_order, watch
from network.net import BOTH_WAYS, Line, Network
from network.report import Report
from network.story import (
    CLOCK,
    PATIENT,
    RECOVERY,
    WORDS,
    Begun,
    adapter_to,
    check_works,
    counting,
    ending,
)
from support import EARLY, SOON, a_task, answer, stopwatch

from vllm_http import End, TaskRequest, Timeouts, VllmHttpAdapter
from vllm_http.testing import Stall, Text


LOSS = f"{BOTH_WAYS} numgen random mod 100 < 2 counter drop"
SLOW = Line("netem delay 200ms", latency=0.2)
NARROW = Line("tbf rate 256kbit burst 3000 limit 100000", rate=32_000)
ONE_SECOND = Timeouts(connect=1, first_token=1, stall=1)
NO_ICMP = "icmp type destination-unreachable drop"
LARGE = "x" * 100_000
"""More than any MTU, and than the windows that TCP begins with."""


def received(adapter: VllmHttpAdapter, task: TaskRequest) -> Seen:
    """All events of a task."""
    seen = watch(adapter.submit(task), time.monotonic())
    check_order(seen, starts=seen.events[0].type == "started")
    return seen


def test_loss(network: Network, report: Report) -> None:
    """Two of a hundred packets get lost, both ways, and 2 MB of text come all the same."""
    pieces = [f"{number:06d}".ljust(1000, ".") for number in range(2000)]
    with adapter_to(
        network, Timeouts(connect=SOON, first_token=RECOVERY, stall=RECOVERY)
    ) as adapter:
        network.rule(LOSS)
        network.host.script(*answer(*pieces))
        seen = received(adapter, a_task(prompt=LARGE))
        lost = network.dropped
        report.add(f"2 % loss: {lost} packets of a 2 MB answer", ending(seen), seen.seconds)

        assert lost > 0
        assert ending(seen) == "stop"
        assert [token.text for token in seen.tokens] == pieces


# An MTU: of the link to this process, and of the one to the engine.
SIZES = [(576, 576), (1500, 576), (576, 1500)]


@pytest.mark.parametrize(("ours", "engines"), SIZES)
def test_small_mtu(ours: int, engines: int, network: Network, report: Report) -> None:
    """Large prompts and large answers fit through, though one end knows of it from ICMP alone."""
    network.mtu(ours, engines)
    network.host.script(*answer(LARGE, LARGE))
    with adapter_to(network, PATIENT) as adapter:
        seen = received(adapter, a_task(prompt=LARGE))
        report.add(f"MTU {ours} of our link, {engines} of the engine's", ending(seen), seen.seconds)

        assert ending(seen) == "stop"
        assert brief(seen.text) == brief(LARGE * 2)


def test_large_packets_to_the_engine_vanish(network: Network, report: Report) -> None:
    """Where ICMP is dropped, a large prompt never arrives, and its task ends by its clock."""
    network.mtu(1500, 576)
    network.rule("accept", own=NO_ICMP)
    with adapter_to(network) as adapter:
        seen = received(adapter, a_task(prompt=LARGE))
        report.add("MTU 576, and no ICMP tells: a large prompt", ending(seen), seen.seconds)

        assert (ending(seen), seen.tokens) == ("Timeout first_token", [])
        assert CLOCK - EARLY <= seen.seconds < CLOCK + SOON
        check_works(network, adapter)


def test_large_packets_to_the_client_vanish(network: Network, report: Report) -> None:
    """Where ICMP is dropped, a stream stops before its first large event, and ends by its clock."""
    network.mtu(576, 1500)
    network.rule("accept", own=NO_ICMP)
    network.host.script(Text("a"), Text("b"), Text(LARGE), Stall())
    with adapter_to(network) as adapter:
        seen = received(adapter, a_task())
        report.add("MTU 576, and no ICMP tells: a large event", ending(seen), seen.seconds)

        assert (ending(seen), brief(seen.text)) == ("Timeout stall", "ab")
        assert CLOCK - EARLY <= seen.seconds < CLOCK + SOON
        network.heal()  # else the engine would never learn that its client has left
        check_works(network, adapter)


def test_narrow_line(report: Report) -> None:
    """Text that comes slowly but steadily is no stall, however long the whole takes."""
    with Network(NARROW) as network, adapter_to(network, ONE_SECOND) as adapter:
        network.host.script(*counting(200, pause=0))
        seen = received(adapter, a_task())
        report.add("256 kbit/s: 200 tokens", ending(seen), seen.seconds, network.means)

        assert ending(seen) == "stop"
        assert seen.text == "".join(WORDS[:200])
        assert seen.seconds > 1.2  # by the line's rate, and so beyond the clock


def test_latency(report: Report) -> None:
    """Packets come 200 ms late: so does the first token, but not each of 50."""
    with Network(SLOW) as network, adapter_to(network, PATIENT) as adapter:
        network.host.script(*counting(50))
        seen = received(adapter, a_task())
        report.add("200 ms latency: 50 tokens", ending(seen), seen.seconds, network.means)

        assert isinstance(seen.last, End)
        assert seen.text == "".join(WORDS[:50])
        assert seen.last.metrics.latency_first_token_ms is not None
        assert seen.last.metrics.latency_first_token_ms >= 200
        assert seen.seconds < SOON  # 50 times the latency would be more


def test_cancel_at_a_distance(report: Report) -> None:
    """A cancel does not wait for the engine, and what is on its way is not shown any more."""
    with Network(SLOW) as network, adapter_to(network, PATIENT) as adapter:
        stream = Begun(network, adapter).stream
        with stopwatch() as clock:
            stream.cancel()
            *_, last = stream
        report.add("200 ms latency: cancel", last.type, clock.seconds, network.means)

        assert isinstance(last, End)
        assert last.finish_reason == "cancelled"
        assert clock.seconds < 2
        check_works(network, adapter)


def test_line_slower_than_the_connect_clock(report: Report) -> None:
    """The clock of the connect means the network's time there and back."""
    with Network(SLOW) as network, adapter_to(network, Timeouts(connect=0.1)) as adapter:
        seen = received(adapter, a_task())
        report.add(
            "200 ms latency, connect=0.1: 3 connects", ending(seen), seen.seconds, network.means
        )

        assert (ending(seen), seen.tokens) == ("Timeout connect", [])
