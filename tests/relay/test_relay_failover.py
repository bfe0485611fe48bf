"""A primary dies in mid-stream, of a cluster of three and of a Sentinel: nobody loses a word."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel
from relay.redis_cluster import Cluster, Node, Watched
from support import PATIENCE, a_task

from vllm_http import Completion, End, Error, Token, VllmHttpAdapter
from vllm_http.integrations.relay import Follower, Relay
from vllm_http.testing import Done, FakeEngine, Finish, Step, Text, Usage, Wait


pytestmark = pytest.mark.timeout(120)

WORDS = [f" {number}" for number in range(400)]
JOBS = [f"job {number}" for number in range(6)] + ["}odd{", "{}"]


def slowly() -> list[Step]:
    """An answer of some seconds, in whose midst there is time for a fail-over."""
    steps = [step for word in WORDS for step in (Text(word), Wait(0.02))]
    return [*steps, Finish(), Usage(), Done()]


def said(follower: Follower) -> str:
    """All of a stream that ends well."""
    events = list(follower)
    assert isinstance(events[-1], End), [e.error for e in events if isinstance(e, Error)]
    return "".join(event.text for event in events if isinstance(event, Token))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster for one test, which may end a node of it."""
    with Cluster(tmp_path) as cluster:
        yield cluster


def publish_through(
    engine: FakeEngine, relay: Relay, follow_by: Relay, fail: Node, kill: object
) -> tuple[list[str], list[Completion]]:
    """What followers and publishers of some jobs get while a node dies."""
    for _ in JOBS:
        engine.script(*slowly())
    with (
        VllmHttpAdapter(engine.url) as adapter,
        ThreadPoolExecutor(2 * len(JOBS)) as threads,
    ):
        reading = [threads.submit(said, follow_by.follow(job)) for job in JOBS]
        writing = [threads.submit(relay.publish, adapter.submit(a_task(job_id=j))) for j in JOBS]
        time.sleep(1)  # a few words; which ones is no matter
        assert callable(kill)
        kill(fail)
        return (
            [future.result(2 * PATIENCE) for future in reading],
            [future.result(PATIENCE) for future in writing],
        )


def test_fail_over_in_a_cluster(engine: FakeEngine, cluster: Cluster) -> None:
    """Its client's own exceptions are an outage like another, and followers get the exact text."""
    place = cluster.nodes[0].port
    with (
        redis.RedisCluster(host="127.0.0.1", port=place, socket_timeout=5) as client,
        redis.RedisCluster(host="127.0.0.1", port=place, socket_timeout=5) as other,
    ):
        fail = cluster.primary_of("vllm-http:{job 0}:state")
        texts, completions = publish_through(
            engine, Relay(client, lease=15), Relay(other), fail, cluster.kill
        )

    assert texts == ["".join(WORDS)] * len(JOBS)
    assert [completion.text for completion in completions] == texts


def test_fail_over_by_a_sentinel(engine: FakeEngine, tmp_path: Path) -> None:
    """The client finds the new primary; what was acknowledged is there."""
    with Watched(tmp_path) as watched:
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            [("127.0.0.1", watched.sentinel.port)], socket_timeout=5
        )
        client = sentinel.master_for(Watched.NAME, socket_timeout=5)
        texts, completions = publish_through(
            engine, Relay(client, lease=15), Relay(client), watched.primary, Node.kill
        )
        client.close()
        for each in sentinel.sentinels:
            each.close()

    assert texts == ["".join(WORDS)] * len(JOBS)
    assert [completion.text for completion in completions] == texts
