"""From `submit` to the end with all machines together: close, deadlines and ctrl-C at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from exploring.managed import raised_by
from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import (
    _adapter,
    _alarms,
    _ask,
    _bell,
    _bulk,
    _crew,
    _funnel,
    _gate,
    _reader,
    _receiver,
    _run,
    _slots,
    _stream,
    _threads,
    _timeline,
    _version,
)
from vllm_http._adapter import VllmHttpAdapter
from vllm_http._errors import AdapterClosed, WorkerError
from vllm_http._events import End, Error, TokenEvent
from vllm_http._run import Over, Run
from vllm_http._task import TaskRequest
from vllm_http._worker import Worker


ALL: tuple[ModuleType, ...] = (
    *(_adapter, _alarms, _ask, _bell, _bulk, _crew, _funnel, _gate, _reader, _receiver, _run),
    *(_slots, _stream, _threads, _timeline, _version),
)


def serve(worker: Worker, run: Run) -> None:
    """As `Worker.serve`, of an engine that never says anything."""
    aborted: list[bool] = []
    exchange: Any = SimpleNamespace(abort=lambda: aborted.append(True))
    try:
        run.taken()
        run.use(exchange)
        WORLDS[-1].block(lambda: bool(aborted))
    except Over:
        pass
    run.let_go()


WORLDS: list[World] = []


@pytest.fixture(autouse=True)
def _silent_engine() -> Iterator[None]:
    with (
        mock.patch.object(Worker, "serve", serve),
        mock.patch.object(_slots, "is_logged", return_value=False),
    ):
        yield


def make_adapter(world: World, **options: Any) -> VllmHttpAdapter:
    """One that knows the engine's version already."""
    WORLDS[:] = [world]
    adapter = VllmHttpAdapter("http://localhost:1", **options)
    adapter._version._known = "0"
    return adapter


def task(**fields: Any) -> TaskRequest:
    """Any."""
    return TaskRequest(model="m", prompt="p", **fields)


def test_close_beside_submit() -> None:
    """It is refused, or ends with `AdapterClosed`; no thread is left either way."""

    def close_meanwhile(world: World) -> Callable[[], None]:
        adapter = make_adapter(world)
        last: list[TokenEvent | WorkerError] = []

        def submit() -> None:
            try:
                last.extend(adapter.submit(task()))
            except AdapterClosed as refusal:
                last.append(refusal)

        world.thread("caller", submit)
        world.thread("closer", lambda: adapter.close(100))

        def check() -> None:
            assert [type(one.error if isinstance(one, Error) else one) for one in last] == [
                AdapterClosed
            ]
            assert world.left == []
            assert world.now < 1050

        return check

    explore(close_meanwhile, _adapter, _reader, also=ALL, preemptions=BOUND - 1, turns=1)


def test_deadline_beside_submit() -> None:
    """Whenever it passes, the task ends, and nothing of it stays."""

    def deadline_passes(world: World) -> Callable[[], None]:
        adapter = make_adapter(world, max_concurrency=1)
        last: list[TokenEvent] = []

        def submit() -> None:
            last.extend(adapter.submit(task(deadline_ms=1)))
            world.block(lambda: adapter.running + adapter.waiting == 0)

        world.thread("caller", submit)

        def check() -> None:
            assert [getattr(getattr(one, "error", None), "phase", one) for one in last] == [
                "deadline"
            ]
            assert adapter._slots.close() == []

        return check

    explore(deadline_passes, _adapter, also=ALL, turns=1)


def test_cancel_beside_submit() -> None:
    """By its id, from before it is known until after its end."""

    def cancel_meanwhile(world: World) -> Callable[[], None]:
        adapter = make_adapter(world, max_concurrency=1)
        last: list[TokenEvent] = []

        def submit() -> None:
            stream = adapter.submit(task(job_id="job"))
            world.block(lambda: cancelled == [True])
            stream.cancel()
            last.extend(stream)
            world.block(lambda: adapter.running + adapter.waiting == 0)

        cancelled: list[bool] = []

        def cancel() -> None:
            adapter.cancel("job")
            cancelled.append(True)

        world.thread("caller", submit)
        world.thread("canceller", cancel)

        def check() -> None:
            assert [one.finish_reason for one in last if isinstance(one, End)] == ["cancelled"]
            assert adapter._slots.close() == []

        return check

    explore(cancel_meanwhile, _slots, _run, also=ALL, preemptions=BOUND - 1, turns=1)


@pytest.mark.parametrize("before", [0, 1])
def test_submit_that_is_interrupted(before: int) -> None:
    """A ctrl-C at any step of it reaches the caller, and leaves no task behind.

    In the first submit, which starts the reader, and in a later one.
    """

    def interrupt_submit(world: World) -> Callable[[], None]:
        adapter = make_adapter(world)
        came: list[type[BaseException] | None] = []

        def submit() -> None:
            adapter.submit(task()).close()

        def caller() -> None:
            for _ in range(before):
                submit()
            world.interrupt("caller")
            came.append(raised_by(submit))
            world.interrupts.clear()
            world.block(lambda: adapter.running + adapter.waiting == 0)
            submit()
            adapter.close(100)

        world.thread("caller", caller)

        def check() -> None:
            assert came[0] in (None, KeyboardInterrupt)
            assert world.left == []
            assert world.now < 1050

        return check

    explore(interrupt_submit, *ALL, preemptions=0, turns=BOUND - 1)


@pytest.mark.parametrize("name", ["map", "stream_many"])
def test_bulk_that_is_interrupted(name: str) -> None:
    """A ctrl-C while it starts tasks, or waits: once it is closed, none of them runs."""

    def interrupt_bulk(world: World) -> Callable[[], None]:
        adapter = make_adapter(world, max_concurrency=2)
        came: list[type[BaseException] | None] = []

        def caller() -> None:
            results = getattr(adapter, name)([task(), task(), task()])
            world.interrupt("caller")
            came.append(raised_by(lambda: next(results)))
            world.interrupts.clear()
            results.close()
            world.block(lambda: adapter.running + adapter.waiting == 0)

        def end_all() -> None:
            world.block(lambda: bool(came) or adapter.running == 2)
            adapter.close(100)

        world.thread("caller", caller)
        world.thread("closer", end_all)

        def check() -> None:
            assert came[0] in (None, KeyboardInterrupt)
            assert world.left == []
            assert world.now < 1050

        return check

    explore(interrupt_bulk, *ALL, preemptions=0, turns=BOUND - 1)


def test_refused_task_of_a_bulk() -> None:
    """It is tried again as if it were new: what it was before neither ends it nor hears of it."""

    def refuse_one(world: World) -> Callable[[], None]:
        adapter = make_adapter(world, max_concurrency=2, max_pending=0)
        ends: dict[str | None, tuple[TokenEvent, float]] = {}
        adapter._version._known = ""
        adapter._version._ask = lambda: str(world.block(lambda: False))  # as long as it likes

        def caller() -> None:
            with adapter.submit(task()):
                tasks = [task(job_id="first"), task(job_id="second", deadline_ms=1000)]
                for of, event in adapter.stream_many(tasks):
                    ends[of.job_id] = event, world.now

        def cancel_first() -> None:
            world.block(lambda: adapter.running == 2)
            world.block(lambda: False, 0.8)
            adapter.cancel("first")

        world.thread("caller", caller)
        world.thread("canceller", cancel_first)

        def check() -> None:
            first, second = ends["first"], ends["second"]
            assert isinstance(first[0], End)
            assert isinstance(second[0], Error)
            assert second[1] - first[1] > 0.9

        return check

    explore(refuse_one, _bulk, also=ALL, preemptions=0, turns=BOUND)
