"""`AdapterRegistry`: adapters by pool and replica."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ._adapter import VllmHttpAdapter
from ._engine import HealthState, HealthStatus
from ._errors import (
    AdapterClosed,
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    WorkerError,
    shown,
)
from ._fork import tell_in_child
from ._frames import frameless
from ._registry_choice import FewestUnfinished, Policy, Promise, Replica
from ._stream import TokenStream
from ._task import TaskRequest
from ._threads import start_thread
from ._worker_adapter import WorkerAdapter


MAX_SESSIONS = 10_000
"""Sessions whose replica is remembered, the latest used; an older one is placed anew."""


class AdapterRegistry:
    """Adapters by pool and replica. Thread-safe; a context manager that shuts all of them down.

    A pool is replicas that serve the same model. `shutdown` closes the adapters that are bound
    then; one that was replaced or unbound is its owner's to close, so that its tasks go on.
    """

    def __init__(self) -> None:
        self._policy: Policy = FewestUnfinished()
        # A pool that has lost its last replica stays, empty: it may get one again.
        self._pools: dict[str, dict[str, Replica]] = {}
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._jobs: weakref.WeakValueDictionary[str, TokenStream] = weakref.WeakValueDictionary()
        self._takers: weakref.WeakKeyDictionary[TokenStream, WorkerAdapter] = (
            weakref.WeakKeyDictionary()
        )
        self._forget_in_child()
        tell_in_child(self)

    def _forget_in_child(self) -> None:
        """After a fork: another thread may have held the lock, or been about to submit."""
        self._lock = threading.RLock()  # reentrant: see Slots
        self._promised: weakref.WeakValueDictionary[str, Promise] = weakref.WeakValueDictionary()
        for pool in self._pools.values():
            for replica in pool.values():
                replica._forget_in_child()

    @classmethod
    @frameless
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
            self._pools.setdefault(pool_id, {})[replica_id] = Replica(adapter)

    def unbind(self, pool_id: str, replica_id: str) -> None:
        """Send it no more tasks; those it has go on. Idempotent."""
        with self._lock:
            self._pools.get(pool_id, {}).pop(replica_id, None)

    def get(self, pool_id: str, replica_id: str) -> WorkerAdapter:
        """The adapter bound there.

        Raises:
            InvalidRequest: None is.
            EngineUnavailable: Nor is any other in that pool, now.
        """
        with self._lock:
            replica = self._pool(pool_id).get(replica_id)
        if replica is None:
            raise InvalidRequest(f"replica_id: {replica_id!r} is not bound in pool {pool_id!r}")
        return replica.adapter

    @frameless
    def submit(self, pool_id: str, task: TaskRequest) -> TokenStream:
        """Start a task on the pool's replica with the fewest unfinished ones; ties at random.

        A `session_id` keeps its replica. One that has just refused (an `EngineUnavailable`, a
        connect `Timeout`, a closed adapter) takes no task while another is there, its sessions'
        included; after five seconds it is tried with one.

        Raises:
            InvalidRequest: No such pool, the task is out of its limits, or its job_id is live.
            EngineUnavailable: Nothing is bound in the pool now.
            WorkerError: As `VllmHttpAdapter.submit`.
        """
        taken: list[TokenStream] = []
        try:
            while not taken:
                self._try(pool_id, task, taken)
            return taken.pop()  # held by no frame of a traceback, should an interrupt come now
        except BaseException:  # a signal handler's, after an adapter has taken it
            for stream in taken:
                stream.close()
            raise

    def cancel(self, job_id: str) -> None:
        """End a task on the adapter that took it; unknown and finished ids are fine."""
        with self._lock:
            stream = self._jobs.get(job_id)
            taker = self._takers.get(stream) if stream is not None else None
            promise = self._promised.get(job_id)  # the newer one, if there are both
            if promise is not None:
                taker = promise.replica.adapter
        if taker is not None:
            taker.cancel(job_id)

    def health(self, pool_id: str) -> dict[str, HealthStatus]:
        """Judge all replicas of a pool at once, by replica id; a closed one is UNHEALTHY.

        Raises:
            InvalidRequest: No such pool.
        """
        with self._lock:
            adapters = {name: replica.adapter for name, replica in self._pool(pool_id).items()}
        answers: queue.SimpleQueue[tuple[str, HealthStatus]] = queue.SimpleQueue()

        def ask(name: str) -> None:
            answers.put((name, _health(adapters[name])))

        for name in adapters:
            try:
                start_thread("health", ask, name)
            except CapacityExceeded:  # such as at the interpreter's end
                ask(name)
        found = dict(answers.get() for _ in adapters)
        return {name: found[name] for name in adapters}

    def shutdown(self, timeout: float = 5.0) -> None:
        """Unbind and close all adapters. Idempotent.

        Args:
            timeout: Seconds for all of them together.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            pools = self._pools
            self._pools = {pool_id: {} for pool_id in pools}
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

    def _pool(self, pool_id: str) -> dict[str, Replica]:
        pool = self._pools.get(pool_id)
        if pool is None:
            raise InvalidRequest(f"pool_id: {pool_id!r} is not bound")
        if not pool:
            raise EngineUnavailable(f"pool {pool_id!r} has no replica now; it had one before")
        return pool

    def _try(self, pool_id: str, task: TaskRequest, taken: list[TokenStream]) -> None:
        """Submit to one replica; it has not taken it if it was closed, and another may."""
        promise = self._promise(pool_id, task)
        replica = promise.replica
        try:
            # Without the lock: to check and to write a large task takes a while.
            taken.append(replica.adapter.submit(task))
            with self._lock:
                replica.keep(promise, taken[0])
                self._jobs[taken[0].job_id] = taken[0]
                self._takers[taken[0]] = replica.adapter
        except (AdapterClosed, EngineUnavailable) as refusal:
            with self._lock:
                replica.refuse()
                others = [r for r in self._pools.get(pool_id, {}).values() if r is not replica]
                if isinstance(refusal, AdapterClosed) and any(r.may_serve() for r in others):
                    return
            raise
        finally:
            with self._lock:
                replica.forget(promise)
                if promise.job_id is not None:
                    self._promised.pop(promise.job_id, None)

    def _promise(self, pool_id: str, task: TaskRequest) -> Promise:
        """Choose a replica, which counts the task from now on; its job_id is taken, too."""
        job_id = _text(task, "job_id")
        with self._lock:
            live = None if job_id is None else self._jobs.get(job_id)
            if (live is not None and not live.done) or job_id in self._promised:
                raise InvalidRequest(f"job_id: {shown(job_id)} is live already", job_id=job_id)
            promise = Promise(self._choose(pool_id, _text(task, "session_id")), job_id)
            if job_id is not None:
                self._promised[job_id] = promise
            return promise

    def _choose(self, pool_id: str, session_id: str | None) -> Replica:
        pool = self._pool(pool_id)
        for replica in pool.values():
            replica.learn()
        session = None if session_id is None else (pool_id, session_id)
        chosen = self._policy.choose(pool, self._sessions.get(session) if session else None)
        if session is not None:
            self._sessions[session] = chosen
            self._sessions.move_to_end(session)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return pool[chosen]


def _text(task: TaskRequest, field: str) -> str | None:
    """A field that the adapter has not checked yet: it will refuse what is no text."""
    value = getattr(task, field, None)
    return value if isinstance(value, str) else None


def _health(adapter: WorkerAdapter) -> HealthStatus:
    try:
        return adapter.health()
    except WorkerError as error:
        return HealthStatus(HealthState.UNHEALTHY, str(error), latency_ms=0.0)
    except Exception as failure:  # a bug in somebody's adapter hides no other replica
        message = f"health() failed: {type(failure).__name__}"
        return HealthStatus(HealthState.UNHEALTHY, message, latency_ms=0.0)


def _close(adapter: WorkerAdapter, deadline: float) -> None:
    adapter.close(max(0.0, deadline - time.monotonic()))
