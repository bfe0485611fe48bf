"""A cancel: what it leaves, what it does not touch. `faults/` says when it may come."""

from __future__ import annotations

import threading

import pytest
import support
from support import SOON, a_task, kinds, posts, wait_until

from vllm_http import End, Token, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Headers, Stall, Text, Tokens


engine, adapter = support.engine, support.adapter


def test_cancel_frees_the_place(engine: FakeEngine) -> None:
    """A waiting task that is cancelled leaves room for the next, and never reaches the engine."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=1) as adapter:
        running, waiting = adapter.submit(a_task()), adapter.submit(a_task(prompt="never"))
        waiting.cancel()
        third = adapter.submit(a_task(prompt="third"))
        posts(engine)
        running.cancel()

        assert third.result(timeout=SOON).error is None
    assert [post.json["prompt"] for post in posts(engine, 2)] == ["Say it", "third"]


def test_cancel_by_id(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """`adapter.cancel` ends the task with this id and no other."""
    engine.script(Headers(), Stall())
    stream = adapter.submit(a_task(job_id="one"))
    posts(engine)
    other = adapter.submit(a_task(job_id="two"))

    adapter.cancel("one")

    assert kinds(stream)[-1:] == ["end"]
    assert other.result(timeout=SOON).finish_reason == "length"


def test_cancel_of_nothing(adapter: VllmHttpAdapter) -> None:
    """An unknown id, a finished one and a second cancel are no errors and have no effect."""
    stream = adapter.submit(a_task(max_tokens=1, job_id="mine"))
    wait_until(lambda: stream.done)

    adapter.cancel("unknown")
    events = list(stream)
    adapter.cancel("mine")
    stream.cancel()

    assert kinds(events) == ["started", "token", "end"]
    assert list(stream) == []


@pytest.mark.parametrize("by_id", [False, True], ids=["stream", "id"])
def test_cancel_after_the_workers_end(adapter: VllmHttpAdapter, by_id: bool) -> None:
    """What was not taken of a whole answer is dropped, and its End is the engine's own."""
    stream = adapter.submit(a_task(max_tokens=50))
    wait_until(lambda: stream.done)
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    adapter.cancel(stream.job_id) if by_id else stream.cancel()

    (end,) = stream
    assert isinstance(end, End)
    assert end.finish_reason == "length"


def test_cancel_twice(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The second cancel adds nothing."""
    engine.script(Tokens(1), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    stream.cancel()
    stream.cancel()
    adapter.cancel(stream.job_id)

    assert kinds(stream) == ["end"]
    assert stream.get(timeout=0) is None


def test_result_and_text_of_a_cancelled_task(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A cancel is no error: text() stops, and result() says how it finished."""
    engine.script(Text("a"), Stall())
    stream = adapter.submit(a_task())
    pieces = stream.text()
    assert next(pieces) == "a"

    stream.cancel()

    assert list(pieces) == []
    assert stream.result(timeout=SOON).finish_reason == "cancelled"


def late_tokens(adapter: VllmHttpAdapter, stream: TokenStream, cancel_at: int) -> int:
    """Drain a stream, have it cancelled on the way, and count the tokens after that."""
    returned = threading.Event()

    def cancel() -> None:
        adapter.cancel(stream.job_id)
        returned.set()

    canceller = threading.Thread(target=cancel)
    late = number = 0
    before = False
    while (event := stream.get(timeout=SOON)) is not None:
        late += before and isinstance(event, Token)
        if number == cancel_at:
            canceller.start()
        number += 1
        before = returned.is_set()
    canceller.join(SOON)
    return late


def test_no_token_after_a_cancel() -> None:
    """Once cancel() has returned, no Token comes out, however full the flow."""
    with FakeEngine() as engine, VllmHttpAdapter(engine.url) as adapter:
        for n in range(40):
            stream = adapter.submit(a_task(max_tokens=2000))

            assert late_tokens(adapter, stream, cancel_at=5 * n) == 0
