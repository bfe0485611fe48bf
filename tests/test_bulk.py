"""Many tasks, one caller: `map` and `stream_many`."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator

import pytest
import support
from support import SOON, kinds

from vllm_http import (
    CapacityExceeded,
    Completion,
    End,
    Error,
    InvalidRequest,
    TaskRequest,
    Token,
    TokenEvent,
    VllmHttpAdapter,
)
from vllm_http.testing import Cut, ErrorEvent, FakeEngine, Normal, Stall, Text, Tokens, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


def tasks(count: int, max_tokens: int = 3) -> Iterator[TaskRequest]:
    """So many tasks, told apart by their job ids."""
    for number in range(count):
        yield TaskRequest(prompt=f"task {number}", max_tokens=max_tokens, job_id=str(number))


def job_ids(completions: list[Completion]) -> list[str | None]:
    """The jobs, in order."""
    return [completion.job_id for completion in completions]


# map


def test_map_yields_completions_in_order(adapter: VllmHttpAdapter) -> None:
    """Each task's own answer, in the order of the tasks, whichever finished first."""
    given = [TaskRequest(prompt=str(n), max_tokens=1 + (7 * n) % 11) for n in range(30)]

    completions = list(adapter.map(given, in_flight=8))

    assert [c.metrics and c.metrics.tokens_generated for c in completions] == [
        task.max_tokens for task in given
    ]
    assert [c.text for c in completions] == [adapter.submit(task).result().text for task in given]


def test_map_unordered_yields_as_they_finish(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A slow task holds up nobody; all come, each once."""
    engine.script(Tokens(1), Stall())
    completions = adapter.map(tasks(10), in_flight=2, ordered=False)

    first = list(itertools.islice(completions, 9))

    (slow,) = {str(number) for number in range(10)} - set(job_ids(first))
    adapter.cancel(slow)
    assert [(c.job_id, c.finish_reason) for c in completions] == [(slow, "cancelled")]


def test_failed_task_stops_nothing(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Refused here, refused there, or failed in mid-stream: a `Completion` with its error."""
    given = [
        TaskRequest(prompt="good", max_tokens=2),
        TaskRequest(prompt="refused here", temperature=3, job_id="mine"),
        TaskRequest(prompt="refused there", model="nobody"),
        TaskRequest(prompt="good again", max_tokens=2),
    ]
    engine.script(Text("half"), ErrorEvent("broken"))

    failed, here, there, good = adapter.map(given, in_flight=1)

    assert failed.error is not None
    assert failed.error.partial is not None
    assert (failed.text, failed.error.partial.text) == ("half", "half")
    assert isinstance(here.error, InvalidRequest)
    assert (here.job_id, here.metrics) == ("mine", None)
    assert there.error is not None
    assert there.error.status == 404
    assert (good.error, good.finish_reason) == (None, "length")


@pytest.mark.parametrize("ordered", [True, False])
def test_map_takes_tasks_as_places_come_free(adapter: VllmHttpAdapter, ordered: bool) -> None:
    """An endless iterable is advanced no further than the tasks in flight."""
    taken = 0

    def endless() -> Iterator[TaskRequest]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield TaskRequest(prompt=str(number), max_tokens=1)

    completions = adapter.map(endless(), in_flight=4, ordered=ordered)
    assert taken == 0
    for yielded in range(1, 20):
        assert next(completions).error is None
        assert taken <= yielded + 4
    completions.close()  # type: ignore[attr-defined]


def test_finished_but_not_yielded_counts_as_in_flight(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """Behind a slow task the others do not pile up."""
    engine.script(Wait(gate), Normal())
    completions = adapter.map(tasks(20), in_flight=4)
    opener = threading.Timer(0.2, gate.set)
    opener.start()

    for yielded, completion in enumerate(completions):
        assert completion.job_id == str(yielded)
        assert len(support.posts(engine)) <= yielded + 4
    opener.join()


@pytest.mark.parametrize("many", ["map", "stream_many"])
def test_closing_cancels_what_runs(engine: FakeEngine, adapter: VllmHttpAdapter, many: str) -> None:
    """Close it or drop it: the engine is free."""
    for close in (True, False):
        engine.script(Tokens(2))
        generator = getattr(adapter, many)(tasks(9, max_tokens=2000), in_flight=3)
        next(generator)
        if close:
            generator.close()
        del generator
        gc.collect()
        engine.wait_idle()


@pytest.mark.parametrize("in_flight", [0, -1, 1.5, True])
def test_in_flight_is_checked_at_once(adapter: VllmHttpAdapter, in_flight: int) -> None:
    """Not at the first `next`, far from where the mistake was made."""
    with pytest.raises(InvalidRequest, match="in_flight"):
        adapter.map([], in_flight=in_flight)
    with pytest.raises(InvalidRequest, match="in_flight"):
        adapter.stream_many([], in_flight=in_flight)


def test_no_tasks_are_no_completions(adapter: VllmHttpAdapter) -> None:
    """An empty iterable ends at once."""
    assert list(adapter.map([])) == []
    assert list(adapter.stream_many(())) == []


def test_map_shares_the_adapter_with_others(engine: FakeEngine) -> None:
    """Where others take up places, tasks wait for one of their own kind to end."""
    with VllmHttpAdapter(engine.url, max_concurrency=2, max_pending=0) as adapter:
        engine.script(Tokens(1), Stall())
        with adapter.submit(TaskRequest(prompt="another's", max_tokens=1)) as other:
            next(other)

            assert [c.error for c in adapter.map(tasks(5), in_flight=2)] == [None] * 5


def test_map_is_refused_where_others_fill_the_adapter(engine: FakeEngine) -> None:
    """With none of its own to wait for, waiting might have no end."""
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter:
        engine.script(Tokens(1), Stall())
        with adapter.submit(TaskRequest(prompt="another's", max_tokens=1)) as other:
            next(other)

            (refused,) = adapter.map(tasks(1))

    assert isinstance(refused.error, CapacityExceeded)


# stream_many


def test_stream_many_keeps_each_task_s_order(adapter: VllmHttpAdapter) -> None:
    """Started, tokens 0, 1, 2, ..., one End: for each task, with the task itself."""
    given = list(tasks(12, max_tokens=5))
    seen: dict[str | None, list[TokenEvent]] = {}

    for task, event in adapter.stream_many(given, in_flight=5):
        assert task in given
        seen.setdefault(task.job_id, []).append(event)

    assert seen.keys() == {task.job_id for task in given}
    for events in seen.values():
        assert kinds(events) == ["started", *["token"] * 5, "end"]
        assert [e.index for e in events if isinstance(e, Token)] == [0, 1, 2, 3, 4]


def test_stream_many_yields_errors(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What arrived before a failure comes out before it."""
    engine.script(Text("half"), Cut("fin"))

    events = [event for _, event in adapter.stream_many(tasks(1))]

    assert kinds(events) == ["started", "token", "error"]


def test_cancelled_task_of_many_shows_no_more_tokens(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """Once `cancel` has returned, no token comes out, though a batch was taken already."""
    engine.script(*[Text("x")] * 50, Stall())
    many = adapter.stream_many(tasks(1))
    while not isinstance(next(many)[1], Token):
        pass

    adapter.cancel("0")

    rest = [event for _, event in many]
    assert kinds(rest) == ["end"]
    assert isinstance(rest[0], End)
    assert rest[0].finish_reason == "cancelled"


def test_close_of_the_adapter_ends_many(engine: FakeEngine) -> None:
    """Whoever drains learns that the adapter was closed."""
    engine.script(Tokens(1), Stall())
    with VllmHttpAdapter(engine.url) as adapter:
        many = adapter.stream_many(tasks(1))
        next(many)
        adapter.close()

        *_, (task, last) = many

    assert task.job_id == "0"
    assert isinstance(last, Error)
    assert last.error.code == "POOL_UNREADY"


def test_slow_caller_of_many_holds_the_engine_back() -> None:
    """The queue is one for all tasks, and bounded: what nobody takes is not read."""
    with (
        FakeEngine(max_model_len=10**6) as engine,
        VllmHttpAdapter(engine.url, queue_size=64) as adapter,
    ):
        many = adapter.stream_many(tasks(4, max_tokens=200_000))
        next(many)
        engine.wait_for_requests(4, timeout=SOON, path=support.COMPLETIONS)

        with pytest.raises(TimeoutError):
            engine.wait_idle(timeout=0.5)
        assert engine.running == 4

        many.close()  # type: ignore[attr-defined]
        engine.wait_idle()
