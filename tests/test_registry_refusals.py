"""AdapterRegistry: a replica that refuses takes no more tasks while another is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import registry_support as support
from registry_support import Recording, finish
from support import QUICKLY, SOON, wait_until

from vllm_http import (
    AdapterClosed,
    AdapterRegistry,
    EngineUnavailable,
    InvalidRequest,
    RetryPolicy,
    StreamingError,
    TaskRequest,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http import _registry_choice as choice
from vllm_http.testing import Cut, FakeEngine, Stall, Status, Step, Text


engine, registry = support.engine, support.registry
REFUSED: list[Step] = [Status(503, {"error": {"message": "no", "code": 503}})]


@pytest.fixture
def other(registry: AdapterRegistry) -> Iterator[FakeEngine]:
    """A second engine, which does not serve as the test has it; replica "bad" of the pool "p"."""
    with FakeEngine() as engine, VllmHttpAdapter(engine.url, retry=RetryPolicy(1)) as adapter:
        registry.bind("p", "bad", adapter)
        yield engine


@pytest.fixture
def good(engine: FakeEngine, registry: AdapterRegistry) -> Iterator[Recording]:
    """An adapter of the engine that serves, not bound yet."""
    with VllmHttpAdapter(engine.url) as adapter:
        yield Recording(adapter)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the registry takes for the time: the only element."""
    now = [1000.0]
    monkeypatch.setattr(choice, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def fail(registry: AdapterRegistry, error: type[WorkerError], **fields: str) -> None:
    """Submit a task that fails; nobody holds its stream after that."""
    task = TaskRequest(prompt="Hello", max_tokens=1, **fields)  # type: ignore[arg-type]
    with pytest.raises(error):
        registry.submit("p", task).result(SOON)


def served_by_bad(registry: AdapterRegistry, other: FakeEngine, times: int = 20) -> int:
    """How many of so many tasks, one after the other, go to the bad replica."""
    before = len(other.requests)
    for _ in range(times):
        registry.submit("p", TaskRequest(prompt="Hello", max_tokens=1)).result(SOON)
    return len([r for r in other.requests[before:] if r.route == "/v1/completions"])


def test_a_replica_that_refused_is_left_out(
    registry: AdapterRegistry, other: FakeEngine, good: Recording
) -> None:
    """Though it has the fewest unfinished tasks, none at all."""
    other.script(*REFUSED)
    fail(registry, EngineUnavailable)
    registry.bind("p", "good", good)

    assert served_by_bad(registry, other) == 0


def test_a_session_leaves_a_replica_that_refused(
    registry: AdapterRegistry, other: FakeEngine, good: Recording
) -> None:
    """And stays where it went."""
    other.script(*REFUSED)
    fail(registry, EngineUnavailable, session_id="s")
    registry.bind("p", "good", good)
    for number in range(10):
        finish(registry, f"s{number}", session_id="s")

    assert len(good.taken) == 10


def test_a_port_that_nobody_listens_on(
    registry: AdapterRegistry, engine: FakeEngine, good: Recording
) -> None:
    """A refused connection is seen while the task is still tried again there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        patient = RetryPolicy(attempts=100, base=60, cap=60)
        with VllmHttpAdapter(f"http://127.0.0.1:{port}", retry=patient) as dead:
            registry.bind("p", "bad", dead)
            with registry.submit("p", TaskRequest(prompt="Hello", max_tokens=1)) as stream:
                wait_until(lambda: stream._run.last_failure is not None)
                registry.bind("p", "good", good)
                engine.script(Stall())
                engine.script(Stall())
                task = TaskRequest(prompt="Hello")
                with registry.submit("p", task), registry.submit("p", task):
                    engine.wait_for_requests(2, path="/v1/completions")
                    for number in range(20):
                        finish(registry, f"j{number}")
                assert not stream.done

    assert len(good.taken) == 22


@pytest.mark.parametrize("script", [[Text("a"), Cut("rst")], [Status(400)]])
def test_what_is_no_refusal(
    registry: AdapterRegistry, other: FakeEngine, good: Recording, script: list[Step]
) -> None:
    """A task's own fault, and an answer that broke off, count nothing against the replica."""
    other.script(*script)
    fail(registry, InvalidRequest if len(script) == 1 else StreamingError)
    registry.bind("p", "good", good)

    assert served_by_bad(registry, other, times=40) > 0


def test_all_have_refused(registry: AdapterRegistry, other: FakeEngine) -> None:
    """Then it makes no difference, and the task is sent somewhere."""
    for _ in range(3):
        other.script(*REFUSED)
        fail(registry, EngineUnavailable)

    assert served_by_bad(registry, other, times=1) == 1


def test_it_is_tried_again_with_one_task(
    registry: AdapterRegistry, other: FakeEngine, good: Recording, clock: list[float]
) -> None:
    """After a while; until that one is answered, the others go elsewhere."""
    other.script(*REFUSED)
    fail(registry, EngineUnavailable)
    registry.bind("p", "good", good)
    finish(registry, "before")
    other.script(Stall())
    clock[0] += choice.MEMORY
    streams = [registry.submit("p", TaskRequest(prompt="Hello", max_tokens=1)) for _ in range(20)]

    other.wait_for_requests(2, path="/v1/completions")
    assert len(good.taken) == 20 - 1 + len(["before"])
    for stream in streams:
        stream.close()


def test_one_answer_restores_it(
    registry: AdapterRegistry, other: FakeEngine, good: Recording, clock: list[float]
) -> None:
    """From then on it takes its share."""
    other.script(*REFUSED)
    fail(registry, EngineUnavailable)
    registry.bind("p", "good", good)
    assert served_by_bad(registry, other) == 0
    clock[0] += choice.MEMORY

    assert served_by_bad(registry, other, times=60) > 5


def test_another_refusal_makes_it_wait_again(
    registry: AdapterRegistry, other: FakeEngine, good: Recording, clock: list[float]
) -> None:
    """Each time it costs one task."""
    for _ in range(3):
        other.script(*REFUSED)
        clock[0] += choice.MEMORY
        registry.unbind("p", "good")
        fail(registry, EngineUnavailable)
        registry.bind("p", "good", good)

        assert served_by_bad(registry, other) == 0


def test_a_retry_that_was_answered_restores_it(
    registry: AdapterRegistry, engine: FakeEngine, good: Recording
) -> None:
    """A task that was refused once and then accepted says that the engine is back."""
    with FakeEngine() as shaky, VllmHttpAdapter(shaky.url, retry=QUICKLY) as adapter:
        registry.bind("p", "bad", adapter)
        shaky.script(*REFUSED)
        shaky.script(Text("a"), Stall())
        with registry.submit("p", TaskRequest(prompt="Hello", max_tokens=1)) as stream:
            assert [next(stream).type, next(stream).type] == ["started", "token"]
            registry.bind("p", "good", good)
            with (
                registry.submit("p", TaskRequest(prompt="a")),
                registry.submit("p", TaskRequest(prompt="b")),
            ):
                assert 1 <= len(good.taken) <= 2
        assert served_by_bad(registry, shaky, times=40) > 0


def test_a_closed_adapter_loses_no_task(registry: AdapterRegistry, good: Recording) -> None:
    """Where one is still bound, the task goes to another, which nobody needs to notice."""
    closed = VllmHttpAdapter("http://127.0.0.1:1")
    closed.close()
    registry.bind("p", "closed", closed)
    registry.bind("p", "good", good)
    for number in range(20):
        finish(registry, f"j{number}")

    assert len(good.taken) == 20


def test_closed_adapters_alone(registry: AdapterRegistry) -> None:
    """With no other there, the caller is told."""
    closed = VllmHttpAdapter("http://127.0.0.1:1")
    closed.close()
    registry.bind("p", "closed", closed)

    for _ in range(2):
        with pytest.raises(AdapterClosed):
            registry.submit("p", TaskRequest(prompt="Hello"))
