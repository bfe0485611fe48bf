"""AdapterRegistry: which replica of a pool takes a task."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import registry_support as support
from registry_support import Recording, finish, stalled

from vllm_http import (
    AdapterRegistry,
)
from vllm_http.testing import FakeEngine


engine, registry, pool = support.engine, support.registry, support.pool


def test_the_replica_with_the_fewest_unfinished_tasks(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """Ties go to the one that was bound first."""
    with ExitStack() as stack:
        jobs = ["j1", "j2", "j3", "j4"]
        streams = [stack.enter_context(stalled(engine, registry, job)) for job in jobs]
        assert (pool[0].taken, pool[1].taken) == (["j1", "j3"], ["j2", "j4"])

        streams[1].cancel()
        streams[1].result(10)
        stack.enter_context(stalled(engine, registry, "j5"))
        stack.enter_context(stalled(engine, registry, "j6"))

    assert pool[1].taken == ["j2", "j4", "j5"]
    assert pool[0].taken == ["j1", "j3", "j6"]


def test_a_rebound_replica_keeps_its_place(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """The order is that of the names, so that it does not depend on deployments."""
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
        dropped.append(stalled(engine, registry, "j3"))
        dropped.clear()
        gc.collect()
        stack.enter_context(stalled(engine, registry, "j4"))
        stack.enter_context(stalled(engine, registry, "j5"))

    assert pool[0].taken == ["j1", "j3", "j4", "j5"]


def test_a_session_keeps_its_replica(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """Even where the other has less to do: its prefix cache is warm."""
    with ExitStack() as stack:
        for job in ("s1", "s2", "s3"):
            stack.enter_context(stalled(engine, registry, job, session_id="s"))
        stack.enter_context(stalled(engine, registry, "j1"))

    assert (pool[0].taken, pool[1].taken) == (["s1", "s2", "s3"], ["j1"])


def test_a_session_moves_only_when_it_must(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """It leaves an unbound replica, and stays where it went."""
    finish(registry, "s1", session_id="s")
    registry.unbind("p", "a")
    finish(registry, "s2", session_id="s")
    registry.bind("p", "a", pool[0])
    finish(registry, "s3", session_id="s")

    assert (pool[0].taken, pool[1].taken) == (["s1"], ["s2", "s3"])


def test_a_session_follows_its_replica_through_a_rebind(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """A replica is its name: the new adapter may speak to the same engine."""
    finish(registry, "s1", session_id="s")
    registry.bind("p", "a", pool[2])
    with stalled(engine, registry, "j1"):
        finish(registry, "s2", session_id="s")

    assert "s2" in pool[2].taken
