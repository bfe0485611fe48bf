"""Whoever lets go of a stream has the engine free at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vllm_http import End, TaskRequest, Token, TokenStream, VllmHttpAdapter

from .server import MODEL, Server


# A minute's work: an engine that is free soon was told so.
LONG = TaskRequest(
    model=MODEL, prompt="Once upon a time", max_tokens=1900, extra_body={"ignore_eos": True}
)


def started(adapter: VllmHttpAdapter, vllm: Server) -> TokenStream:
    """Return a stream on which the engine is at work."""
    stream = adapter.submit(LONG)
    next(event for event in stream if isinstance(event, Token))
    assert vllm.running() == 1
    return stream


def assert_idle(vllm: Server, how: str, measured: Callable[[str], None]) -> None:
    """Check that the engine has nothing to do within a second."""
    seconds = vllm.seconds_until_idle()
    measured(f"idle {seconds:.2f} s after {how}")
    assert seconds < 1.0, how


@pytest.mark.parametrize(
    ("how", "let_go"),
    [
        ("stream.cancel()", lambda adapter, stream: stream.cancel()),
        ("adapter.cancel(job_id)", lambda adapter, stream: adapter.cancel(stream.job_id)),
    ],
    ids=["stream", "adapter"],
)
def test_cancel_frees_the_engine(
    adapter: VllmHttpAdapter,
    vllm: Server,
    measured: Callable[[str], None],
    how: str,
    let_go: Callable[[VllmHttpAdapter, TokenStream], None],
) -> None:
    """After either cancel the engine is idle, no token comes any more, and the end says why."""
    stream = started(adapter, vllm)

    let_go(adapter, stream)

    assert_idle(vllm, how, measured)
    (end,) = stream
    assert isinstance(end, End)
    assert end.finish_reason == "cancelled"


def test_leaving_a_with_frees_the_engine(
    adapter: VllmHttpAdapter, vllm: Server, measured: Callable[[str], None]
) -> None:
    """A block left half-way leaves nothing behind in the engine."""
    with started(adapter, vllm):
        pass

    assert_idle(vllm, "leaving `with`", measured)


def test_dropping_the_stream_frees_the_engine(
    adapter: VllmHttpAdapter, vllm: Server, measured: Callable[[str], None]
) -> None:
    """A stream that nobody can read any more is not worked on either."""
    stream = started(adapter, vllm)

    del stream

    assert_idle(vllm, "the last reference has gone", measured)
