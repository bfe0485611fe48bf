"""Whoever wants to leave while nothing passes can do so at once; the network is not asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from network.net import BOTH_WAYS, Network
from network.report import Report
from network.story import (
    LONG,
    Begun,
    adapter_to,
    check_works,
    wait_for_connect,
    wait_for_request,
)
from support import a_task, stopwatch, wait_until

from vllm_http import AdapterClosed, End, Error, TokenStream, VllmHttpAdapter
from vllm_http.testing import Stall


Reach = Callable[[Network, VllmHttpAdapter], TokenStream]


def in_mid_stream(network: Network, adapter: VllmHttpAdapter) -> TokenStream:
    """A stream that had tokens, and then all packets are dropped."""
    stream = Begun(network, adapter).stream
    network.rule(f"{BOTH_WAYS} drop")
    return stream


def before_content(network: Network, adapter: VllmHttpAdapter) -> TokenStream:
    """A stream whose engine has the request when all packets are dropped."""
    network.host.script(Stall())
    stream = adapter.submit(a_task())
    wait_for_request(network)
    network.rule(f"{BOTH_WAYS} drop")
    return stream


def in_a_request(network: Network, adapter: VllmHttpAdapter) -> TokenStream:
    """A stream whose request is too large to be written while all packets are dropped."""
    assert adapter.submit(a_task()).result().finish_reason == "length"
    network.rule(f"{BOTH_WAYS} counter drop")
    stream = adapter.submit(a_task(prompt="x" * 2**24))
    wait_until(lambda: network.dropped > 0)
    return stream


def in_connect(network: Network, adapter: VllmHttpAdapter) -> TokenStream:
    """A stream whose connect gets no answer."""
    network.rule(f"{BOTH_WAYS} drop")
    stream = adapter.submit(a_task())
    wait_for_connect()
    return stream


PHASES = [in_mid_stream, before_content, in_a_request, in_connect]


@pytest.mark.parametrize("reach", PHASES)
def test_cancel_while_nothing_passes(reach: Reach, network: Network, report: Report) -> None:
    """The iteration ends at once, and the engine hears of it when the network is back."""
    with adapter_to(network, LONG) as adapter:
        stream = reach(network, adapter)
        with stopwatch() as watch:
            stream.cancel()
            *_, last = stream
        report.add(f"all packets dropped: cancel {reach.__name__}", last.type, watch.seconds)

        assert isinstance(last, End)
        assert last.finish_reason == "cancelled"
        assert watch.seconds < 2
        network.heal()
        check_works(network, adapter)


@pytest.mark.parametrize("reach", PHASES)
def test_close_while_nothing_passes(reach: Reach, network: Network, report: Report) -> None:
    """The adapter's streams end at once, and `close` returns within its time."""
    adapter = adapter_to(network, LONG)
    stream = reach(network, adapter)
    with stopwatch() as watch:
        adapter.close(timeout=0.5)
    report.add(f"all packets dropped: close {reach.__name__}", "returns", watch.seconds)
    *_, last = stream

    assert isinstance(last, Error)
    assert isinstance(last.error, AdapterClosed)
    assert watch.seconds < 2
