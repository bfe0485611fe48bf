"""A fork while another thread holds every lock that we own."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import support
from forking import forks, in_a_child
from locks import Found, held_elsewhere, locks_of, makers
from support import SOON, a_task, answer, kinds, posts, stopwatch, wait_until

from vllm_http import (
    AdapterRegistry,
    HealthState,
    RetryPolicy,
    TaskRequest,
    TokenEvent,
    TokenStream,
    VllmHttpAdapter,
)
from vllm_http.testing import FakeEngine, Headers, Status, Text, Wait


engine, gate = support.engine, support.gate


@dataclass
class Parent:
    """All that a parent may have: an adapter in a registry, and tasks in different phases."""

    adapter: VllmHttpAdapter
    idle: VllmHttpAdapter
    registry: AdapterRegistry
    streams: list[TokenStream]
    many: Iterator[tuple[TaskRequest, TokenEvent]]

    @property
    def locks(self) -> list[Found]:
        """Every lock in it."""
        return locks_of(self.adapter, self.idle, self.registry, self.streams, self.many)


@pytest.fixture
def parent(engine: FakeEngine, gate: threading.Event) -> Iterator[Parent]:
    """One whose tasks are in mid-stream, before content, in a backoff, and among many."""
    retry = RetryPolicy(max_retry_after=60)
    with (
        VllmHttpAdapter(engine.url, retry=retry) as adapter,
        VllmHttpAdapter(engine.url) as idle,  # nothing but a kept connection
        AdapterRegistry() as registry,
    ):
        assert idle.submit(a_task()).result(timeout=SOON).error is None
        registry.bind("pool", "replica", adapter)
        streams = [adapter.submit(a_task()), adapter.submit(a_task())]
        assert all(stream.result(timeout=SOON).error is None for stream in streams)
        engine.script(Text("a"), Wait(gate), *answer("b"))
        streams = [adapter.submit(a_task())]
        assert kinds([next(streams[0]), next(streams[0])]) == ["started", "token"]
        engine.script(Headers(), Wait(gate), *answer("c"))
        streams.append(registry.submit("pool", a_task()))
        assert next(streams[1]).type == "started"
        engine.script(Status(503, headers={"retry-after": "50"}))
        streams.append(adapter.submit(a_task()))
        wait_until(lambda: streams[2]._run._backoff is not None)
        engine.script(Text("d"), Wait(gate), *answer("e"))
        many = adapter.stream_many([a_task()])
        assert kinds([next(many)[1], next(many)[1]]) == ["started", "token"]
        yield Parent(adapter, idle, registry, streams, many)


def test_every_lock_is_found(parent: Parent) -> None:
    """No class of ours that makes a lock is missing, so a new one is held in the test below too."""
    owners = {owner for found in parent.locks for owner in found.owners}

    assert makers() - owners == set()
    assert "_Adapter" in owners  # requests' pools


@forks
def test_fork_while_every_lock_is_held(
    engine: FakeEngine, parent: Parent, gate: threading.Event
) -> None:
    """The child's old streams are over, its new tasks run, all ends; the parent's streams go on."""

    def live() -> list[Any]:
        with stopwatch() as watch:
            old = [kinds(stream) for stream in parent.streams]
            old.append([event.type for _, event in parent.many][-1:])
            texts = [
                parent.adapter.submit(a_task()).result(timeout=SOON).text,
                parent.idle.submit(a_task()).result(timeout=SOON).text,
                parent.registry.submit("pool", a_task()).result(timeout=SOON).text,
            ]
            healthy = parent.adapter.health().state is HealthState.HEALTHY
            for stream in parent.streams:
                stream.cancel()
                stream.close()
            parent.registry.shutdown()
            gc.collect()
        return [old, texts, healthy, watch.seconds < SOON]

    with held_elsewhere(parent.locks):
        old, texts, healthy, in_time = in_a_child(live)

    assert old == [["error"]] * 4
    assert texts[0] != ""
    assert texts == [texts[0]] * 3
    assert (healthy, in_time) == (True, True)
    assert not any(post.hung_up.is_set() for post in posts(engine, 10))
    gate.set()
    assert [list(stream.text()) for stream in parent.streams[:2]] == [["b"], ["c"]]
    assert kinds(event for _, event in parent.many)[-2:] == ["token", "end"]
    parent.streams[2].cancel()
    assert kinds(parent.streams[2]) == ["end"]
