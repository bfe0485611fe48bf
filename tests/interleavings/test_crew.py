"""Worker threads, under every schedule: a job that was given is run, whoever leaves meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import _crew, _threads
from vllm_http._crew import Crew


def test_each_job_is_run() -> None:
    """Once, though idle threads lose their patience in that very moment."""

    def give_jobs(world: World) -> Callable[[], None]:
        crew = Crew()
        done: list[str] = []

        def give(name: str) -> None:
            crew.run(partial(done.append, f"{name} 1"))
            world.block(lambda: f"{name} 1" in done)
            crew.run(partial(done.append, f"{name} 2"))

        world.thread("a", partial(give, "a"))
        world.thread("b", lambda: crew.run(partial(done.append, "b 1")))

        def check() -> None:
            assert sorted(done) == ["a 1", "a 2", "b 1"]

        return check

    explore(give_jobs, _crew, also=(_threads,), preemptions=BOUND - 1, turns=1)


def test_job_for_a_thread_that_loses_patience() -> None:
    """It was promised the job, and takes it, or another does."""

    def give_late(world: World) -> Callable[[], None]:
        crew = Crew()
        done: list[int] = []

        def give() -> None:
            for number in range(2):
                crew.run(partial(done.append, number))
                world.block(lambda: False, 0.5)

        world.thread("caller", give)

        def check() -> None:
            assert sorted(done) == [0, 1]

        return check

    explore(give_late, _crew, also=(_threads,), turns=1)


def test_close() -> None:
    """Lets all threads go, and what was given before, or meanwhile, is run."""

    def close_meanwhile(world: World) -> Callable[[], None]:
        crew = Crew()
        done: list[int] = []
        closed: list[bool] = []

        def give() -> None:
            crew.run(partial(done.append, 0))
            crew.run(partial(done.append, 1))

        def close() -> None:
            crew.close(100)
            closed.append(True)
            assert world.now < 1050

        world.thread("caller", give)
        world.thread("closer", close)

        def check() -> None:
            assert sorted(done) == [0, 1]
            assert world.left == []

        return check

    explore(close_meanwhile, _crew, also=(_threads,), preemptions=BOUND - 1, turns=1)


def test_two_who_close() -> None:
    """At once, from two threads: no more threads are started than there were jobs."""

    def close_twice(world: World) -> Callable[[], None]:
        crew = Crew()
        crew.run(lambda: None)

        def close() -> None:
            crew.close(100)
            assert world.now < 1050

        world.thread("closer 1", close)
        world.thread("closer 2", close)

        def check() -> None:
            assert world.left == []
            assert len([one for one in world.threads if one.name.startswith("worker")]) <= 2

        return check

    explore(close_twice, _crew, also=(_threads,), preemptions=BOUND - 1, turns=1)


def test_caller_who_is_interrupted() -> None:
    """Whatever became of its job, the next one is run, and close lets all threads go."""

    def interrupt_run(world: World) -> Callable[[], None]:
        crew = Crew()
        done: list[int] = []

        def give() -> None:
            try:
                crew.run(partial(done.append, 0))
                world.block(lambda: False, 0.1)
                crew.run(partial(done.append, 1))
            except KeyboardInterrupt:
                pass
            world.interrupts.clear()
            crew.run(partial(done.append, 2))
            crew.close(100)
            assert world.now < 1050

        world.thread("caller", give)
        world.interrupt("caller")

        def check() -> None:
            assert 2 in done
            assert len(set(done)) == len(done)
            assert world.left == []

        return check

    explore(interrupt_run, _crew, also=(_threads,), preemptions=BOUND - 2, turns=BOUND)


def test_collection_inside() -> None:
    """A finalizer that gives a job, at any step of who gives or takes one."""

    def collect_inside(world: World) -> Callable[[], None]:
        crew = Crew()
        done: list[str] = []
        world.collect("caller", lambda: crew.run(partial(done.append, "finalizer's")))
        world.collect("worker-0", lambda: crew.run(partial(done.append, "finalizer's")))

        def give() -> None:
            for _ in range(2):
                crew.run(partial(done.append, "caller's"))
                world.block(lambda: False, 0.1)

        world.thread("caller", give)

        def check() -> None:
            assert done.count("caller's") == 2
            assert done.count("finalizer's") <= 1

        return check

    explore(collect_inside, _crew, also=(_threads,), preemptions=BOUND - 1, turns=1)
