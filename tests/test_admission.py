"""A task that is over, or was refused, is nowhere any more."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator

import pytest
import support
from support import SOON, a_task, posts, the_error, wait_until

from vllm_http import CapacityExceeded, TaskRequest, Timeout, VllmHttpAdapter, _run
from vllm_http._slots import Slots
from vllm_http.testing import FakeEngine, Stall, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


def books(adapter: VllmHttpAdapter) -> list[int]:
    """How many tasks the adapter has of each kind."""
    slots = adapter._slots
    return [len(slots._live), len(slots._waiting), len(slots._running), len(slots._unlogged)]


@pytest.mark.parametrize("places", [1, 2], ids=["it would wait", "it would run"])
def test_deadline_that_passes_before_admission(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    """The clock may strike at any moment of a submit; Celery's deadlines are often nearly over."""
    engine.script(Stall())
    admit = Slots.admit
    with VllmHttpAdapter(engine.url, max_concurrency=places) as adapter:
        first = adapter.submit(a_task())
        posts(engine)

        def admit_late(self: Slots, run: _run.Run) -> None:
            wait_until(lambda: time.monotonic() > run._deadline)
            admit(self, run)

        monkeypatch.setattr(Slots, "admit", admit_late)
        stream = adapter.submit(a_task(deadline_ms=5))

        error = the_error(stream)
        assert isinstance(error, Timeout)
        assert error.phase == "deadline"
        wait_until(lambda: books(adapter) == [1, 0, 1, 0])
        first.cancel()


def test_many_deadlines_that_pass_at_once(engine: FakeEngine) -> None:
    """Wherever they strike, all tasks end and none stays."""
    with VllmHttpAdapter(engine.url, max_concurrency=4) as adapter:
        runs = weakref.WeakSet[_run.Run]()
        tasks = (a_task(deadline_ms=1 + n % 5) for n in range(400))
        for stream in [adapter.submit(task) for task in tasks]:
            runs.add(stream._run)
            stream.get(SOON)
        del stream

        wait_until(lambda: books(adapter) == [0, 0, 0, 0])
        gc.collect()
        wait_until(lambda: not runs)


def test_refused_task_leaves_nothing(engine: FakeEngine) -> None:
    """No alarm, no listener, no place, no id; and its JSON was not even made."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter:
        first = adapter.submit(a_task())
        posts(engine)
        made: list[object] = []
        before = books(adapter), len(adapter._reader._loop._alarms._heap)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_run, "encode", made.append)
            for _ in range(100):
                with pytest.raises(CapacityExceeded):
                    adapter.submit(a_task(job_id="mine", deadline_ms=50))

        assert (books(adapter), len(adapter._reader._loop._alarms._heap)) == before
        assert made == []
        first.cancel()
        wait_until(lambda: adapter.running == 0)
        assert adapter.submit(a_task(job_id="mine")).result(SOON).error is None


def test_refused_task_of_a_map_does_not_end_its_successor(engine: FakeEngine) -> None:
    """A task that was refused for want of room, and has a deadline, is started anew later."""
    engine.script(Wait(0.3))
    with VllmHttpAdapter(engine.url, max_concurrency=2, max_pending=0) as adapter:
        other = adapter.submit(a_task())  # somebody else's: the map has one place
        posts(engine)
        engine.script(Wait(0.2))
        tasks = [a_task(), a_task(deadline_ms=150), a_task()]
        answers = list(adapter.map(tasks, in_flight=2))

        assert [answer.error for answer in answers] == [None] * 3
        assert other.result(SOON).error is None


def test_interrupt_by_the_tasks_of_a_map(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What the caller's own iterable raises ends what runs, and reaches the caller."""
    engine.script(Stall())

    def tasks() -> Iterator[TaskRequest]:
        yield a_task()
        posts(engine)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(adapter.map(tasks()))

    assert posts(engine)[0].hung_up.wait(SOON)
    wait_until(lambda: books(adapter) == [0, 0, 0, 0])
