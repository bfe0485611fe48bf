"""Cancel against everything that may happen in the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import support
from support import SOON, a_task, kinds

from vllm_http import End, Token, TokenEvent, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

ROUNDS = 300


def natural_end(stream: TokenStream) -> None:
    """Let the task run to its own end."""


def second_cancel(stream: TokenStream) -> None:
    """Cancel once more."""
    stream.cancel()


def close(stream: TokenStream) -> None:
    """Close as the owner."""
    stream.close()


def honest(events: list[TokenEvent], closed: bool) -> None:
    """Check the order of events, of which a cancel may have dropped any at the end."""
    last = events[-1] if events else None
    if not closed or isinstance(last, End):
        assert isinstance(last, End)
        assert last.finish_reason in ("length", "cancelled")
        events = events[:-1]
    assert kinds(events) == (["started"] + ["token"] * 3)[: len(events)]
    tokens = [event.index for event in events if isinstance(event, Token)]
    assert tokens == list(range(len(tokens)))


@pytest.mark.parametrize("rival", [natural_end, second_cancel, close])
def test_cancel_races(
    engine: FakeEngine, adapter: VllmHttpAdapter, rival: Callable[[TokenStream], None]
) -> None:
    """Whoever comes first, the events stay in order and at most one End is the last."""
    ends: dict[str, int] = {}
    start, finish = threading.Barrier(2), threading.Barrier(2)
    streams: list[TokenStream] = []

    def cancel() -> None:
        for n in range(ROUNDS):
            start.wait(SOON)
            threading.Event().wait(n % 30 / 5000)  # 0 to 6 ms: before, in and after the answer.
            streams[-1].cancel()
            finish.wait(SOON)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    for n in range(ROUNDS):
        stream = adapter.submit(a_task(max_tokens=3))
        streams[:] = [stream]
        start.wait(SOON)
        if n % 2 and rival is not natural_end:
            threading.Event().wait(n % 20 / 5000)
        rival(stream)
        events = list(iter(lambda s=stream: s.get(timeout=SOON), None))  # type: ignore[misc]
        finish.wait(SOON)
        honest(events, closed=rival is close)
        last = events[-1] if events else None
        ends[last.finish_reason if isinstance(last, End) else "none"] = 1
    canceller.join(SOON)
    engine.wait_idle()

    assert not canceller.is_alive()
    assert adapter.submit(a_task(max_tokens=1)).result(timeout=SOON).finish_reason == "length"
    assert ends
    if rival is natural_end:
        assert set(ends) == {"length", "cancelled"}
