"""AdapterRegistry: binding, cancelling, health and shutdown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import registry_support as support
from registry_support import Broken, Recording, Sick, finish, stalled

from vllm_http import (
    AdapterClosed,
    AdapterRegistry,
    End,
    EngineUnavailable,
    HealthState,
    InvalidRequest,
    TaskRequest,
    VllmHttpAdapter,
    WorkerAdapter,
    WorkerError,
)
from vllm_http.testing import Done, FakeEngine, Finish, Tokens, Wait


engine, registry, pool = support.engine, support.registry, support.pool


# Bind, unbind, get.


def test_get_gives_what_was_bound(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """Each replica by its pool and name, and a rebound one's new adapter."""
    assert registry.get("p", "a") is pool[0]
    assert registry.get("p", "b") is pool[1]

    registry.bind("p", "a", pool[2])

    assert registry.get("p", "a") is pool[2]


def test_repr_names_what_is_bound(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """By pool and replica."""
    assert repr(AdapterRegistry()) == "<AdapterRegistry empty>"
    assert "p/a" in repr(registry)
    assert "p/b" in repr(registry)


def test_pools_do_not_mix(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """The same replica name in another pool is another replica."""
    registry.bind("q", "a", pool[2])

    assert registry.get("p", "a") is pool[0]
    assert registry.get("q", "a") is pool[2]
    registry.submit("q", TaskRequest(prompt="Hello", max_tokens=1, job_id="q1")).result(10)
    assert (pool[2].taken, pool[0].taken) == (["q1"], [])


@pytest.mark.parametrize(("pool_id", "replica_id"), [("p", "x"), ("x", "a"), ("", "")])
def test_get_of_the_unknown(
    registry: AdapterRegistry, pool: list[Recording], pool_id: str, replica_id: str
) -> None:
    """It is refused, by name."""
    with pytest.raises(InvalidRequest, match=f"{pool_id!r}"):
        registry.get(pool_id, replica_id)


def test_unknown_pools_are_refused(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """By `submit` and `health` alike."""
    with pytest.raises(InvalidRequest, match="'x'"):
        registry.submit("x", TaskRequest(prompt="Hello"))
    with pytest.raises(InvalidRequest, match="'x'"):
        registry.health("x")


def test_unbind_is_idempotent(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """Also for what never was, which is unknown ever after."""
    for _ in range(2):
        registry.unbind("p", "a")
        registry.unbind("x", "y")

    finish(registry, "j1")
    assert pool[1].taken == ["j1"]
    with pytest.raises(InvalidRequest, match="'x'"):
        registry.submit("x", TaskRequest(prompt="Hello"))


@pytest.mark.parametrize("ask", ["submit", "health", "get"])
@pytest.mark.parametrize("by", ["unbind", "shutdown"])
def test_a_pool_that_has_lost_all_replicas_is_unavailable(
    registry: AdapterRegistry, pool: list[Recording], ask: str, by: str
) -> None:
    """It is no mistake of the caller's: it may be tried again, once a replica is bound."""
    if by == "unbind":
        registry.unbind("p", "a")
        registry.unbind("p", "b")
    else:
        registry.shutdown()
    asked: dict[str, Callable[[], object]] = {
        "submit": lambda: registry.submit("p", TaskRequest(prompt="Hello")),
        "health": lambda: registry.health("p"),
        "get": lambda: registry.get("p", "a"),
    }

    with pytest.raises(EngineUnavailable, match="'p'") as caught:
        asked[ask]()

    assert caught.value.retriable
    registry.bind("p", "c", pool[2])
    finish(registry, "later")
    assert pool[2].taken == ["later"]


def test_a_bad_task_is_refused_before_it_counts(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """It raises as the adapter's own submit does, makes no replica look busy, and frees its id."""
    for number in range(20):
        with pytest.raises(InvalidRequest, match="max_tokens"):
            registry.submit("p", TaskRequest(prompt="Hello", max_tokens=0, job_id="bad"))
        finish(registry, f"good{number}")
    finish(registry, "bad")

    assert pool[0].taken
    assert pool[1].taken


@pytest.mark.parametrize(
    "fields", [{"job_id": 5}, {"job_id": ["j"]}, {"session_id": {}}, {"session_id": 7}]
)
def test_an_id_of_a_wrong_type_is_refused(
    registry: AdapterRegistry, pool: list[Recording], fields: dict[str, Any]
) -> None:
    """By the adapter, which names it."""
    with pytest.raises(InvalidRequest, match=next(iter(fields))):
        registry.submit("p", TaskRequest(prompt="Hello", **fields))


def test_a_live_job_id_is_refused_in_the_whole_registry(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """Otherwise a cancel would not know which one was meant."""
    with stalled(engine, registry, "j1"), pytest.raises(InvalidRequest, match="j1"):
        registry.submit("p", TaskRequest(prompt="Hello", job_id="j1"))
    finish(registry, "j1")


# Rebinding.


def test_running_tasks_stay_with_their_adapter(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """A rebind ends nothing, and new tasks go to the new adapter."""
    go_on = threading.Event()
    engine.script(Tokens(1), Wait(go_on), Tokens(1), Finish(), Done())
    registry.unbind("p", "b")
    with registry.submit("p", TaskRequest(prompt="Hello", job_id="old")) as old:
        engine.wait_for_requests(1, path="/v1/completions")
        registry.bind("p", "a", pool[2])
        finish(registry, "new")
        assert not old.done
        go_on.set()
        *_, last = old

    assert isinstance(last, End)
    assert (pool[0].taken, pool[2].taken) == (["old"], ["new"])


def test_rebinding_is_atomic(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """While one thread rebinds, no other ever finds the replica missing."""
    registry.unbind("p", "b")
    stop = threading.Event()

    def rebind() -> None:
        while not stop.is_set():
            registry.bind("p", "a", pool[2])
            registry.bind("p", "a", pool[0])

    thread = threading.Thread(target=rebind)
    thread.start()
    try:
        found = {registry.get("p", "a") for _ in range(2000)}
        for n in range(20):
            finish(registry, f"j{n}")
    finally:
        stop.set()
        thread.join()

    assert found <= {pool[0], pool[2]}
    assert sorted(pool[0].taken + pool[2].taken) == sorted(f"j{n}" for n in range(20))


@pytest.mark.parametrize("change", ["none", "rebind", "unbind"])
def test_cancel_goes_to_the_adapter_that_took_the_job(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording], change: str
) -> None:
    """Whatever is bound in its place by then."""
    registry.unbind("p", "b")
    with stalled(engine, registry, "j1") as stream:
        next(stream), next(stream)
        if change == "rebind":
            registry.bind("p", "a", pool[2])
        if change == "unbind":
            registry.unbind("p", "a")
        registry.cancel("j1")
        (last,) = stream

    assert isinstance(last, End)
    assert last.finish_reason == "cancelled"
    assert pool[0].cancelled == ["j1"]
    assert pool[1].cancelled + pool[2].cancelled == []


def test_cancel_is_idempotent(registry: AdapterRegistry, pool: list[Recording]) -> None:
    """Unknown and finished ids are no error."""
    finish(registry, "j1")

    for job in ("never", "j1", "j1"):
        registry.cancel(job)


# Health and shutdown.


def test_health_asks_all_replicas_at_once(registry: AdapterRegistry) -> None:
    """Each check waits for the other here, so one after the other would never end."""
    meet = threading.Barrier(2, timeout=5)
    registry.bind("p", "a", Sick(meet, HealthState.HEALTHY))
    registry.bind("p", "b", Sick(meet, HealthState.DEGRADED))

    found = registry.health("p")

    assert {replica: status.state for replica, status in found.items()} == {
        "a": HealthState.HEALTHY,
        "b": HealthState.DEGRADED,
    }


def test_a_replica_that_cannot_be_judged_hides_no_other(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """A closed adapter's replica is unhealthy; the rest is told."""
    pool[1].close()

    found = registry.health("p")

    assert [*found] == ["a", "b"]
    assert found["a"].state is HealthState.HEALTHY
    assert found["b"].state is HealthState.UNHEALTHY


def test_shutdown_closes_all(
    engine: FakeEngine, registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """Running tasks end as by `close`, and nothing is bound any more; idempotent."""
    stream = stalled(engine, registry, "j1")
    registry.shutdown()
    registry.shutdown()
    with pytest.raises(AdapterClosed):
        stream.result(10)

    with pytest.raises(WorkerError):
        registry.submit("p", TaskRequest(prompt="Hello"))
    assert [adapter.closed for adapter in pool] == [True, True, False]


def test_shutdown_closes_all_though_one_fails(
    registry: AdapterRegistry, pool: list[Recording]
) -> None:
    """The first adapter's bug does not keep the second one's threads alive."""
    registry.bind("p", "a", Broken(threading.Barrier(1), HealthState.HEALTHY))
    with suppress(RuntimeError):  # Whether it comes out afterwards is another matter.
        registry.shutdown()

    assert pool[1].closed


def test_leaving_the_with_block_shuts_down(engine: FakeEngine) -> None:
    """As everywhere in this package."""
    adapter = Recording(VllmHttpAdapter(engine.url))
    with AdapterRegistry() as registry:
        registry.bind("p", "a", adapter)

    assert adapter.closed


def test_both_adapters_fulfil_the_protocol(pool: list[Recording]) -> None:
    """One by its methods alone."""
    adapters: list[WorkerAdapter] = [pool[0], pool[0].inner]

    assert not issubclass(type(adapters[0]), VllmHttpAdapter)
