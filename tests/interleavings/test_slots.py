"""Admission under every schedule: a task that is over stays nowhere, and each one gets its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from exploring.locks import SimpleQueue
from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import _bell, _crew, _gate, _receiver, _run, _slots, _threads, _timeline
from vllm_http._errors import AdapterClosed, WorkerError
from vllm_http._receiver import Receiver
from vllm_http._run import Run
from vllm_http._settings import Labels, Timeouts
from vllm_http._slots import Slots
from vllm_http._task import TaskRequest


ALSO = (_crew, _receiver, _gate, _bell, _run, _threads, _timeline)


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Each record is a job of the crew's; without them there are fewer schedules."""
    with mock.patch.object(_slots, "is_logged", return_value=False):
        yield


class Desk:
    """Makes runs, serves them as a worker does whose engine always fails, and rings their clocks.

    Attributes:
        runs: All that were made.
        served: Those that a worker had.
    """

    ending = False  # as a loop

    def __init__(self, world: World, *, places: int, pending: int) -> None:
        self.world = world
        self.runs: list[Run] = []
        self.served: list[Run] = []
        self.refused: list[Run] = []
        self.clocked: list[Run] = []
        self.inside: list[Run] = []
        self.inbox = SimpleQueue()
        self.slots = Slots(places, pending, self.serve)
        self.slots.reader = self  # type: ignore[assignment]
        world.thread("reader", self.read, daemon=True)

    def run(self, *, deadline_ms: int | None = None) -> Run:
        """One that was not admitted yet."""
        task = TaskRequest(model="m", prompt="p", job_id=f"{len(self.runs)}")
        task.deadline_ms = deadline_ms
        self.runs.append(
            Run(
                task,
                timeouts=Timeouts(),
                gate=Receiver(8),
                reader=self,  # type: ignore[arg-type]
                version=lambda: "0",
                labels=Labels("", ""),
                on_over=self.slots.leave,
                on_left=self.slots.release,
            )
        )
        return self.runs[-1]

    def admit(self, run: Run) -> None:
        """As `submit` does."""
        try:
            self.slots.admit(run)
            self.inside.append(run)
        except WorkerError:
            self.refused.append(run)
            run.abandon()

    def serve(self, run: Run) -> None:
        """As `Worker.serve`."""
        self.served.append(run)
        run.taken()
        if not run.over:
            run.fail(WorkerError("the engine is gone"))
        run.let_go()

    def at(self, when: float, ring: Callable[[float], float | None]) -> None:
        """As `Reader.at`; the tests ring by themselves."""
        self.clocked.append(ring.__self__)  # type: ignore[attr-defined]

    def soon(self, call: Callable[[], object]) -> None:
        """As `Reader.soon`."""
        self.inbox.put(call)

    def read(self) -> None:
        """The reader's thread."""
        while True:
            self.inbox.get()()

    def check(self) -> None:
        """Nothing is left of what is over, and all are over that were admitted."""
        slots = self.slots
        admitted = [run for run in self.runs if run not in self.refused]
        assert [run.job_id for run in admitted if not run.over] == []
        assert (slots.running, slots.waiting) == (0, 0)
        assert slots.close() == []


def test_each_has_its_turn() -> None:
    """One place, three tasks: whoever waits is served when a place comes free."""

    def admit_three(world: World) -> Callable[[], None]:
        desk = Desk(world, places=1, pending=2)
        runs = [desk.run() for _ in range(3)]

        def admit_two() -> None:
            desk.admit(runs[0])
            desk.admit(runs[1])

        world.thread("a", admit_two)
        world.thread("b", lambda: desk.admit(runs[2]))

        def check() -> None:
            assert set(desk.served) == set(desk.runs)
            desk.check()

        return check

    explore(admit_three, _slots, also=ALSO, preemptions=BOUND - 1, turns=1)


@pytest.mark.parametrize("places", ["free", "taken"])
def test_deadline_around_admission(places: str) -> None:
    """It may pass before, within and after it: no run that is over stays anywhere."""

    def deadline_passes(world: World) -> Callable[[], None]:
        desk = Desk(world, places=1, pending=1)
        late = desk.run(deadline_ms=1)

        def admit() -> None:
            if places == "taken":
                desk.admit(desk.run())
            desk.admit(late)

        world.thread("caller", admit)

        def ring() -> None:
            world.block(lambda: late in desk.clocked)
            late.ring(world.now + 10)

        world.thread("clock", ring)
        return desk.check

    explore(deadline_passes, _slots, also=ALSO, preemptions=BOUND - (places == "taken"), turns=1)


def test_cancel_around_admission() -> None:
    """The same for whoever cancels by the id."""

    def cancel_meanwhile(world: World) -> Callable[[], None]:
        desk = Desk(world, places=1, pending=1)
        other, one = desk.run(), desk.run()

        def admit() -> None:
            desk.admit(other)
            desk.admit(one)

        def cancel() -> None:
            if (run := desk.slots.find(one.job_id)) is not None:
                run.fail(WorkerError("cancelled"))

        world.thread("caller", admit)
        world.thread("canceller", cancel)
        return desk.check

    explore(cancel_meanwhile, _slots, also=ALSO, preemptions=BOUND - 1, turns=1)


def test_close_around_admission() -> None:
    """What was admitted is ended, what comes later is refused, and no worker begins anew."""

    def close_meanwhile(world: World) -> Callable[[], None]:
        desk = Desk(world, places=1, pending=1)
        runs = [desk.run(), desk.run()]

        def admit() -> None:
            desk.admit(runs[0])
            desk.admit(runs[1])

        def close() -> None:
            for run in desk.slots.close():
                run.fail(AdapterClosed("closed"))
            desk.slots.join(100)
            assert world.now < 1050

        world.thread("caller", admit)
        world.thread("closer", close)
        return desk.check

    explore(close_meanwhile, _slots, also=ALSO, preemptions=BOUND - 1, turns=1)


def test_collection_inside() -> None:
    """A finalizer that ends another task, at any step of admission and release."""

    def abandon_inside(world: World) -> Callable[[], None]:
        desk = Desk(world, places=1, pending=2)
        runs = [desk.run(), desk.run(), desk.run()]

        def finalize() -> None:
            for run in desk.inside[:1]:
                run.abandon()

        for name in ("caller", "worker-0"):
            world.collect(name, finalize)

        def admit() -> None:
            for run in runs:
                desk.admit(run)

        world.thread("caller", admit)
        return desk.check

    explore(abandon_inside, _slots, also=ALSO, preemptions=BOUND - 2)
