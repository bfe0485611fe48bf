"""Cancel against everything that may happen in the same moment.

All 10,000 races with VLLM_HTTP_TEST_RACES=10000; fewer else, since each waits for its moment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import pytest
import support
from faults.figures import Figures
from support import SOON, a_task, kinds, stopwatch

from vllm_http import End, Token, TokenEvent, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine


adapter = support.adapter

RACES = int(os.environ.get("VLLM_HTTP_TEST_RACES", "1500"))
MOMENTS = 30
LAST_MOMENT = 0.002  # Seconds; most answers are whole by then.


def natural_end(stream: TokenStream) -> None:
    """Let the task run to its own end."""


def second_cancel(stream: TokenStream) -> None:
    """Cancel once more."""
    stream.cancel()


def close(stream: TokenStream) -> None:
    """Close as the owner."""
    stream.close()


Rival: TypeAlias = Callable[[TokenStream], None]
RIVALS: list[Rival] = [natural_end, second_cancel, close]


def pause(n: int, moments: int) -> None:
    """Wait for the n-th moment: before, in and after the answer."""
    if n % moments:
        threading.Event().wait(n % moments / moments * LAST_MOMENT)


class Canceller:
    """A thread that cancels one stream after the other, each at its moment."""

    def __init__(self) -> None:
        self._streams: list[TokenStream | None] = [None]
        self._start, self._finish = threading.Barrier(2), threading.Barrier(2)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Canceller:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            self._start.abort()
            self._finish.abort()
        else:
            self._streams[0] = None
            self._start.wait(SOON)
        self._thread.join(SOON)
        assert not self._thread.is_alive()

    @contextlib.contextmanager
    def cancelling(self, stream: TokenStream) -> Iterator[None]:
        """Cancel it at some moment within the block, or just after it."""
        self._streams[0] = stream
        self._start.wait(SOON)
        yield
        self._finish.wait(SOON)

    def _run(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            for n in itertools.count():
                self._start.wait(SOON)
                stream = self._streams[0]
                if stream is None:
                    return
                pause(n, MOMENTS)
                stream.cancel()
                self._finish.wait(SOON)


def check_order(events: list[TokenEvent]) -> None:
    """Check the order of events, of which a cancel may have dropped any but the last."""
    last = events[-1] if events else None
    assert isinstance(last, End)
    assert last.finish_reason in ("length", "cancelled")
    assert kinds(events[:-1]) == (["started"] + ["token"] * 3)[: len(events) - 1]
    tokens = [event.index for event in events if isinstance(event, Token)]
    assert tokens == list(range(len(tokens)))


def race(adapter: VllmHttpAdapter, canceller: Canceller, rival: Rival, n: int) -> str:
    """One task that is cancelled while its rival acts; how it ended."""
    stream = adapter.submit(a_task(max_tokens=3))
    events: list[TokenEvent] = []
    with canceller.cancelling(stream):
        if rival is not natural_end:
            pause(n, MOMENTS - 1)  # each against each moment of the other
        rival(stream)
        while (event := stream.get(timeout=SOON)) is not None:
            events.append(event)
    if rival is close:
        assert events == []
        return "nothing"
    check_order(events)
    return cast("End", events[-1]).finish_reason


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rival", RIVALS)
def test_cancel_races(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    rival: Rival,
    figures: Figures,
) -> None:
    """Whoever comes first: events in order and one End at last, or none at all after a close."""
    rounds = len(range(RIVALS.index(rival), RACES, len(RIVALS)))
    with Canceller() as canceller, stopwatch() as watch:
        ends = Counter(race(adapter, canceller, rival, n) for n in range(rounds))
    figures.raced(rival.__name__, ends, watch.seconds)
    engine.wait_idle()

    assert ends.total() == rounds
    assert adapter.submit(a_task(max_tokens=1)).result(timeout=SOON).finish_reason == "length"
    if rival is natural_end:
        assert set(ends) == {"length", "cancelled"}
