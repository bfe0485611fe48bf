"""What the registry's tests share: a pool, and adapters that fulfil the Protocol by methods."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from vllm_http import (
    AdapterRegistry,
    EngineProps,
    EngineUnavailable,
    HealthState,
    HealthStatus,
    RetryPolicy,
    TaskRequest,
    TokenStream,
    VllmHttpAdapter,
)
from vllm_http.testing import FakeEngine, Stall, Tokens


class Recording:
    """An adapter around another that notes which jobs it took and cancelled."""

    def __init__(self, inner: VllmHttpAdapter) -> None:
        self.inner = inner
        self.taken: list[str] = []
        self.cancelled: list[str] = []
        self.closed = False

    def submit(self, task: TaskRequest) -> TokenStream:
        """Pass it on, and note its id."""
        stream = self.inner.submit(task)
        self.taken.append(stream.job_id)
        return stream

    def cancel(self, job_id: str) -> None:
        """Note it, and pass it on."""
        self.cancelled.append(job_id)
        self.inner.cancel(job_id)

    def health(self) -> HealthStatus:
        """Pass it on."""
        return self.inner.health()

    def props(self) -> EngineProps:
        """Pass it on."""
        return self.inner.props()

    def engine_version(self) -> str:
        """Pass it on."""
        return self.inner.engine_version()

    def close(self, timeout: float = 5.0) -> None:
        """Note it, and pass it on."""
        self.closed = True
        self.inner.close(timeout)


class Sick:
    """An adapter without an engine: it can only be judged, together with its peers."""

    def __init__(self, meet: threading.Barrier, state: HealthState) -> None:
        self._meet = meet
        self._state = state

    def submit(self, task: TaskRequest) -> TokenStream:
        """Refuse it."""
        raise EngineUnavailable("sick")

    def cancel(self, job_id: str) -> None:
        """Do nothing."""

    def health(self) -> HealthStatus:
        """Wait for the peers' checks."""
        self._meet.wait()
        return HealthStatus(self._state, "", 0.0)

    def props(self) -> EngineProps:
        """Say as little as possible."""
        return EngineProps("sick", "0")

    def engine_version(self) -> str:
        """Say as little as possible."""
        return "0"

    def close(self, timeout: float = 5.0) -> None:
        """Do nothing."""


class Broken(Sick):
    """One whose close fails, as an adapter with a bug does."""

    def close(self, timeout: float = 5.0) -> None:
        """Fail."""
        raise RuntimeError("sick")


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine, behind all replicas."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def registry() -> Iterator[AdapterRegistry]:
    """An empty registry."""
    with AdapterRegistry() as registry:
        yield registry


@pytest.fixture
def pool(engine: FakeEngine, registry: AdapterRegistry) -> Iterator[list[Recording]]:
    """Two replicas, "a" and "b" of the pool "p", and a spare adapter."""
    with ExitStack() as stack:
        made = [
            Recording(stack.enter_context(VllmHttpAdapter(engine.url, retry=RetryPolicy(1))))
            for _ in range(3)
        ]
        registry.bind("p", "a", made[0])
        registry.bind("p", "b", made[1])
        yield made


def stalled(engine: FakeEngine, registry: AdapterRegistry, job: str, **fields: str) -> TokenStream:
    """A task that stays unfinished."""
    before = sum(request.route == "/v1/completions" for request in engine.requests)
    engine.script(Tokens(1), Stall())
    stream = registry.submit("p", TaskRequest(prompt="Hello", job_id=job, **fields))  # type: ignore[arg-type]
    engine.wait_for_requests(before + 1, path="/v1/completions")  # The script is taken.
    return stream


def finish(registry: AdapterRegistry, job: str, **fields: str) -> None:
    """Submit a task and see its end."""
    task = TaskRequest(prompt="Hello", max_tokens=1, job_id=job, **fields)  # type: ignore[arg-type]
    assert registry.submit("p", task).result(10).finish_reason == "length"
