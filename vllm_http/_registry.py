"""`AdapterRegistry`: adapters by pool and replica."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from ._adapter import VllmHttpAdapter
from ._engine import HealthState, HealthStatus
from ._errors import InvalidRequest, WorkerError
from ._fork import tell_in_child
from ._stream import TokenStream
from ._task import TaskRequest
from ._worker_adapter import WorkerAdapter


MAX_SESSIONS = 10_000
"""Sessions whose replica is remembered, the latest used; an older one is placed anew."""


class _Replica:
    """An adapter and the streams that it was given, which this does not keep alive."""

    def __init__(self, adapter: WorkerAdapter) -> None:
        self.adapter = adapter
        self._streams: weakref.WeakSet[TokenStream] = weakref.WeakSet()

    def submit(self, task: TaskRequest) -> TokenStream:
        stream = self.adapter.submit(task)
        self._streams.add(stream)
        return stream

    def unfinished(self) -> int:
        for stream in list(self._streams):
            if stream.done:
                self._streams.discard(stream)
        return len(self._streams)


class AdapterRegistry:
    """Adapters by pool and replica. Thread-safe; a context manager that shuts all of them down.

    A pool is replicas that serve the same model. `shutdown` closes the adapters that are bound
    then; one that was replaced or unbound is its owner's to close, so that its tasks go on.
    """

    def __init__(self) -> None:
        self._pools: dict[str, dict[str, _Replica]] = {}
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._jobs: weakref.WeakValueDictionary[str, TokenStream] = weakref.WeakValueDictionary()
        self._takers: weakref.WeakKeyDictionary[TokenStream, WorkerAdapter] = (
            weakref.WeakKeyDictionary()
        )
        self._forget_in_child()
        tell_in_child(self)

    def _forget_in_child(self) -> None:
        """After a fork: another thread may have held the lock."""
        self._lock = threading.RLock()  # reentrant: see Slots

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **adapter_options: Any
    ) -> AdapterRegistry:
        """A registry with the adapter that the environment names, or an empty one.

        Reads ``ORCHD_VLLM_URL``, ``ORCHD_VLLM_POOL`` ("default") and ``ORCHD_VLLM_REPLICA`` ("r0");
        a blank one counts as unset.

        Args:
            environ: Where to read; None is `os.environ`.
            adapter_options: For `VllmHttpAdapter`.
        """
        registry = cls()
        environ = os.environ if environ is None else environ
        url = environ.get("ORCHD_VLLM_URL", "").strip()
        if url:
            pool_id = environ.get("ORCHD_VLLM_POOL", "").strip() or "default"
            replica_id = environ.get("ORCHD_VLLM_REPLICA", "").strip() or "r0"
            labels = {"pool_id": pool_id, "replica_id": replica_id}
            adapter = VllmHttpAdapter(url, **{**labels, **adapter_options})
            registry.bind(pool_id, replica_id, adapter)
        return registry

    def bind(self, pool_id: str, replica_id: str, adapter: WorkerAdapter) -> None:
        """Bind an adapter, or put it in another's place: from now on new tasks go to it."""
        with self._lock:
            self._pools.setdefault(pool_id, {})[replica_id] = _Replica(adapter)

    def unbind(self, pool_id: str, replica_id: str) -> None:
        """Send it no more tasks; those it has go on. Idempotent."""
        with self._lock:
            pool = self._pools.get(pool_id, {})
            pool.pop(replica_id, None)
            if not pool:
                self._pools.pop(pool_id, None)

    def get(self, pool_id: str, replica_id: str) -> WorkerAdapter:
        """The adapter bound there.

        Raises:
            InvalidRequest: None is.
        """
        with self._lock:
            replica = self._pool(pool_id).get(replica_id)
        if replica is None:
            raise InvalidRequest(f"replica_id: {replica_id!r} is not bound in pool {pool_id!r}")
        return replica.adapter

    def submit(self, pool_id: str, task: TaskRequest) -> TokenStream:
        """Start a task on the pool's replica with the fewest unfinished ones.

        Ties go to the one bound first. A `session_id` keeps its replica while that is bound.

        Raises:
            InvalidRequest: No such pool, the task is out of its limits, or its job_id is live.
            WorkerError: As `VllmHttpAdapter.submit`.
        """
        with self._lock:
            live = self._jobs.get(task.job_id) if task.job_id is not None else None
            if live is not None and not live.done:
                raise InvalidRequest(f"job_id: {task.job_id!r} is live already", job_id=task.job_id)
            replica = self._choose(pool_id, task.session_id)
            stream = replica.submit(task)
            self._jobs[stream.job_id] = stream
            self._takers[stream] = replica.adapter
            return stream

    def cancel(self, job_id: str) -> None:
        """End a task on the adapter that took it; unknown and finished ids are fine."""
        with self._lock:
            stream = self._jobs.get(job_id)
            taker = self._takers.get(stream) if stream is not None else None
        if taker is not None:
            taker.cancel(job_id)

    def health(self, pool_id: str) -> dict[str, HealthStatus]:
        """Judge all replicas of a pool at once, by replica id; a closed one is UNHEALTHY.

        Raises:
            InvalidRequest: No such pool.
        """
        with self._lock:
            adapters = {name: replica.adapter for name, replica in self._pool(pool_id).items()}
        with ThreadPoolExecutor(len(adapters), "vllm_http-health") as threads:
            checks = threads.map(_health, adapters.values())
            return dict(zip(adapters, checks, strict=True))

    def shutdown(self, timeout: float = 5.0) -> None:
        """Unbind and close all adapters. Idempotent.

        Args:
            timeout: Seconds for all of them together.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            pools, self._pools = self._pools, {}
        with ExitStack() as stack:  # closes the others too when one fails
            for pool in pools.values():
                for replica in pool.values():
                    stack.callback(_close, replica.adapter, deadline)

    def __enter__(self) -> AdapterRegistry:
        return self

    def __exit__(self, *failure: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        with self._lock:
            bound = [f"{pool}/{name}" for pool, names in self._pools.items() for name in names]
        return f"<AdapterRegistry {', '.join(bound) or 'empty'}>"

    def _pool(self, pool_id: str) -> dict[str, _Replica]:
        pool = self._pools.get(pool_id)
        if pool is None:
            raise InvalidRequest(f"pool_id: {pool_id!r} is not bound")
        return pool

    def _choose(self, pool_id: str, session_id: str | None) -> _Replica:
        pool = self._pool(pool_id)
        session = (pool_id, session_id or "")
        kept = self._sessions.get(session)
        chosen = kept if kept in pool else min(pool, key=lambda name: pool[name].unfinished())
        if session_id is not None:
            self._sessions[session] = chosen
            self._sessions.move_to_end(session)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return pool[chosen]


def _health(adapter: WorkerAdapter) -> HealthStatus:
    try:
        return adapter.health()
    except WorkerError as error:
        return HealthStatus(HealthState.UNHEALTHY, str(error), latency_ms=0.0)


def _close(adapter: WorkerAdapter, deadline: float) -> None:
    adapter.close(max(0.0, deadline - time.monotonic()))
