"""AdapterRegistry: which replica of a pool takes a task."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import registry_support as support
from registry_support import Recording, finish, stalled

from vllm_http import AdapterRegistry, TaskRequest
from vllm_http.testing import FakeEngine


engine, registry, pool = support.engine, support.registry, support.pool


def test_the_replica_with_the_fewest_unfinished_tasks(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """Whoever gets the first, they share the work, and the one that has finished some gets more."""
    with ExitStack() as stack:
        jobs = ["j1", "j2", "j3", "j4"]
        streams = [stack.enter_context(stalled(engine, registry, job)) for job in jobs]
        assert [len(pool[0].taken), len(pool[1].taken)] == [2, 2]

        free = pool[0] if "j1" in pool[0].taken else pool[1]
        streams[0].cancel()
        streams[0].result(10)
        stack.enter_context(stalled(engine, registry, "j5"))

    assert free.taken[2:] == ["j5"]


def test_ties_are_broken_at_random(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """Many programs with a registry each don't all begin with the same replica."""
    for number in range(40):  # all at one replica: once in 5e11 runs
        finish(registry, f"j{number}")

    assert len(pool[0].taken) + len(pool[1].taken) == 40
    assert pool[0].taken
    assert pool[1].taken


def test_a_rebound_replica_is_its_new_adapter(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """It takes the tasks from then on."""
    registry.unbind("p", "b")
    registry.bind("p", "a", pool[2])
    finish(registry, "j1")

    assert pool[2].taken == ["j1"]


def test_dropped_streams_are_not_counted(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """A task whose stream nobody holds is cancelled, so its replica is free."""
    with ExitStack() as stack:
        dropped = [stalled(engine, registry, "j1")]
        stack.enter_context(stalled(engine, registry, "j2"))
        free = pool[0] if "j1" in pool[0].taken else pool[1]
        dropped.clear()
        gc.collect()
        stack.enter_context(stalled(engine, registry, "j3"))

    assert free.taken == ["j1", "j3"]


def test_a_session_keeps_its_replica(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """Even where the other has less to do: its prefix cache is warm."""
    with ExitStack() as stack:
        for job in ("s1", "s2", "s3"):
            stack.enter_context(stalled(engine, registry, job, session_id="s"))
        stack.enter_context(stalled(engine, registry, "j1"))

    assert sorted([pool[0].taken, pool[1].taken]) == [["j1"], ["s1", "s2", "s3"]]


def test_a_session_moves_only_when_it_must(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """It leaves an unbound replica, and stays where it went."""
    finish(registry, "s1", session_id="s")
    first, second = ("a", pool[0]), ("b", pool[1])
    if "s1" in pool[1].taken:
        first, second = second, first
    registry.unbind("p", first[0])
    finish(registry, "s2", session_id="s")
    registry.bind("p", *first)
    for job in ("s3", "s4", "s5"):
        finish(registry, job, session_id="s")

    assert (first[1].taken, second[1].taken) == (["s1"], ["s2", "s3", "s4", "s5"])


def test_a_session_follows_its_replica_through_a_rebind(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """A replica is its name: the new adapter may speak to the same engine."""
    finish(registry, "s1", session_id="s")
    registry.bind("p", "a" if "s1" in pool[0].taken else "b", pool[2])
    for job in ("s2", "s3", "s4", "s5"):
        finish(registry, job, session_id="s")

    assert pool[2].taken == ["s2", "s3", "s4", "s5"]


def test_the_choice_is_made_by_a_policy(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """One that is made for it may choose by anything that a replica tells."""

    class Last:
        def choose(self, replicas: object, kept: str | None) -> str:
            return str(list(replicas)[-1])  # type: ignore[call-overload]

    registry._policy = Last()
    for number in range(5):
        registry.submit("p", TaskRequest(prompt="Hello", max_tokens=1)).result(10)
        assert len(pool[1].taken) == number + 1
