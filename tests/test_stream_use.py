"""The ways to drain a stream, and what happens when its caller is slow."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import pytest
import support
from support import SOON, a_task, answer, kinds, posts, wait_until

from vllm_http import (
    End,
    Started,
    StreamingError,
    Token,
    TokenEvent,
    VllmHttpAdapter,
)
from vllm_http._receiver import Receiver
from vllm_http.testing import (
    Cut,
    Done,
    FakeEngine,
    Finish,
    Headers,
    Stall,
    Status,
    Text,
    Usage,
    Wait,
)


engine, adapter, gate = support.engine, support.adapter, support.gate


def test_text_is_choice_zeros(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """text() yields the pieces of the first choice only."""
    engine.script(
        Text("a"), Text("x", choice=1), Text("b"), Finish(), Finish(choice=1), Usage(), Done()
    )

    stream = adapter.submit(a_task(temperature=1.0, extra_body={"n": 2}))

    assert list(stream.text()) == ["a", "b"]


def test_text_raises_the_error(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """text() yields what came and then raises what the Error event holds."""
    engine.script(Text("a"), Cut("rst"))
    pieces = adapter.submit(a_task()).text()

    assert next(pieces) == "a"
    with pytest.raises(StreamingError):
        next(pieces)


def test_get_one_at_a_time(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """get() returns the next event, raises queue.Empty in vain, and says None at the end."""
    engine.script(Headers(), Wait(gate), *answer("a"))
    stream = adapter.submit(a_task())

    assert isinstance(stream.get(timeout=SOON), Started)
    with pytest.raises(queue.Empty):
        stream.get(timeout=0.05)
    gate.set()
    assert isinstance(stream.get(timeout=SOON), Token)
    assert isinstance(stream.get(), End)
    assert stream.get() is None
    assert stream.get(timeout=0.01) is None


def test_receiver_is_a_queue(adapter: VllmHttpAdapter) -> None:
    """The receiver is a queue.Queue of single events, the last one an End."""
    stream = adapter.submit(a_task(max_tokens=2))

    assert isinstance(stream.receiver, queue.Queue)
    taken = [stream.receiver.get(timeout=SOON) for _ in range(4)]
    assert kinds(taken) == ["started", "token", "token", "end"]
    assert stream.receiver.empty()
    with pytest.raises(queue.Empty):
        stream.receiver.get_nowait()


def test_receiver_ends_with_an_error(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A failed task's last item in the receiver is the Error."""
    engine.script(Status(400))
    stream = adapter.submit(a_task())

    assert stream.receiver.get(timeout=SOON).type == "error"


def test_done_before_all_is_taken(adapter: VllmHttpAdapter) -> None:
    """`done` tells that the worker is through, though all events still wait."""
    stream = adapter.submit(a_task(max_tokens=3))

    wait_until(lambda: stream.done)

    assert kinds(stream) == ["started", "token", "token", "token", "end"]


def test_not_done_while_it_runs(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """`done` is False in the middle of a stream."""
    engine.script(Text("a"), Stall())
    with adapter.submit(a_task()) as stream:
        assert kinds([next(stream), next(stream)]) == ["started", "token"]
        assert not stream.done


def test_full_queue_stops_the_engine(engine: FakeEngine) -> None:
    """A caller who takes nothing stops the reading, loses nothing, and holds few events."""
    texts = [f"{number}" + "x" * 500_000 for number in range(40)]
    engine.script(*answer(*texts))
    with VllmHttpAdapter(engine.url, queue_size=4) as adapter:
        stream = adapter.submit(a_task())
        wait_until(lambda: stream.receiver.qsize() >= 4)
        (post,) = posts(engine)

        assert not post.finished.wait(0.3)
        assert stream.receiver.qsize() <= 4
        assert list(stream.text()) == texts
        assert post.finished.wait(SOON)


def test_queue_is_bounded_by_a_read(engine: FakeEngine) -> None:
    """However small the events are, no more than one read of them waits beyond queue_size."""
    engine.script(*answer(*["ab"] * 5000))
    with VllmHttpAdapter(engine.url, queue_size=1) as adapter:
        stream = adapter.submit(a_task())
        lengths = [stream.receiver.qsize() for _ in stream]

    assert len(lengths) == 5002
    assert max(lengths) < 1000


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_any_timeout_may_be_asked_for(adapter: VllmHttpAdapter, timeout: float) -> None:
    """Longer than the system can wait is as long as it can."""
    seen: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()

    def take() -> None:  # off the main thread, which waits in short pieces
        stream = adapter.submit(a_task())
        while (event := stream.get(timeout)) is not None:
            seen.put(event)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(SOON)

    assert kinds(seen.get_nowait() for _ in range(seen.qsize()))[-1] == "end"


def test_repr_says_where_it_stands(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """And how much waits to be taken; no text."""
    engine.script(Text("secret"), Stall())
    stream = adapter.submit(a_task(job_id="j"))
    wait_until(lambda: stream.receiver.qsize() == 2)
    assert repr(stream) == "<TokenStream 'j' running, 2 events waiting>"

    stream.cancel()
    assert repr(stream) == "<TokenStream 'j' done, 2 events waiting>"

    assert kinds(stream) == ["started", "end"]
    assert repr(stream) == "<TokenStream 'j' ended, 0 events waiting>"


def test_end_that_is_being_put_is_waited_for(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who looks between the end of a stream and its last event does not miss that."""
    engine.script(Text("a"), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    ending, looked = threading.Event(), threading.Event()
    seen: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    store, take = Receiver._store, Receiver._rest

    def slow_store(self: Receiver, events: Sequence[TokenEvent]) -> None:
        ending.set()
        assert looked.wait(SOON)
        store(self, events)

    def seen_rest(self: Receiver) -> TokenEvent:
        looked.set()
        return take(self)

    def look() -> None:
        assert ending.wait(SOON)
        seen.put(kinds(stream))

    monkeypatch.setattr(Receiver, "_store", slow_store)
    monkeypatch.setattr(Receiver, "_rest", seen_rest)
    caller = threading.Thread(target=look)
    caller.start()
    stream.cancel()
    caller.join(SOON)

    assert seen.get_nowait() == ["end"]
