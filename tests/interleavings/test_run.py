"""A run between its worker, its clocks and whoever ends it, under every schedule."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from exploring.locks import SimpleQueue
from exploring.schedules import explore
from exploring.world import World

from vllm_http import _bell, _gate, _receiver, _run, _timeline
from vllm_http._errors import WorkerError
from vllm_http._events import Error
from vllm_http._receiver import Receiver
from vllm_http._run import Over, Run
from vllm_http._settings import Labels, Timeouts
from vllm_http._task import TaskRequest


ALSO = (_receiver, _gate, _bell, _timeline)


class Calls:
    """As a reader's thread; what it was told is called there."""

    def __init__(self, world: World) -> None:
        self._inbox = SimpleQueue()
        self.soon = self._inbox.put
        world.thread("reader", self._read, daemon=True)

    def at(self, when: float, ring: object) -> None:
        """The tests ring by themselves."""

    def _read(self) -> None:
        while True:
            self._inbox.get()()


def make_run(world: World, left: list[bool]) -> Run:
    """One that was admitted."""
    return Run(
        TaskRequest(model="m", prompt="p", job_id="job"),
        timeouts=Timeouts(),
        gate=Receiver(8),
        reader=Calls(world),  # type: ignore[arg-type]
        version=lambda: "0",
        labels=Labels("", ""),
        on_over=lambda run: None,
        on_left=lambda run: left.append(True),
    )


def failed(run: Run) -> None:
    """End it from elsewhere."""
    run.fail(WorkerError("ended"))


def test_end_wakes_a_backoff() -> None:
    """Whenever it comes: before, while or after the worker falls asleep."""

    def end_while_pausing(world: World) -> Callable[[], None]:
        run = make_run(world, [])

        def work() -> None:
            try:
                run.pause(60)
            except Over:
                return

        world.thread("worker", work)
        world.thread("ender", lambda: failed(run))

        def check() -> None:
            assert isinstance(run.gate.last, Error)
            assert world.now < 1010

        return check

    explore(end_while_pausing, _run, also=ALSO)


def test_collection_inside_a_backoff() -> None:
    """A finalizer in the worker's own thread may end the very run that pauses there."""

    def abandon_while_pausing(world: World) -> Callable[[], None]:
        run = make_run(world, [])
        world.collect("worker", run.abandon)

        def work() -> None:
            try:
                run.pause(60)
            except Over:
                return

        world.thread("worker", work)
        return lambda: None

    explore(abandon_while_pausing, _run, also=ALSO, preemptions=0)


def test_end_aborts_the_exchange() -> None:
    """Either the worker sees that the run is over, or whoever ended it sees the exchange."""

    def end_while_opening(world: World) -> Callable[[], None]:
        run = make_run(world, [])
        aborted: list[bool] = []
        exchange: Any = SimpleNamespace(abort=lambda: aborted.append(True))

        def work() -> None:
            try:
                run.use(exchange)
                world.block(lambda: bool(aborted))
            except Over:
                return

        world.thread("worker", work)
        world.thread("ender", lambda: failed(run))
        return lambda: None

    explore(end_while_opening, _run, also=ALSO)


def test_end_reaches_the_reader() -> None:
    """A run that was handed over is left by the reader, whenever it is ended."""

    def end_while_handed_over(world: World) -> Callable[[], None]:
        left: list[bool] = []
        run = make_run(world, left)

        def leave() -> None:
            if not left:
                run.let_go()

        def work() -> None:
            run.handed_over(leave)
            run.reader.soon(lambda: leave() if run.over else None)

        world.thread("worker", work)
        world.thread("ender", lambda: failed(run))

        def check() -> None:
            assert left == [True]

        return check

    explore(end_while_handed_over, _run, also=ALSO)
