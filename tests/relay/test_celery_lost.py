"""Workers, brokers and Redis that go away in mid-stream: the task is done all the same, once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from relay.rabbitmq import RabbitMQ
from relay.redis_server import RedisServer
from relay.workers import Caller, Worker, follow, take, texts
from support import SOON, answer, kinds, posts

from vllm_http.integrations.relay import Relay
from vllm_http.testing import Done, FakeEngine, Finish, Stall, Text, Usage, Wait


pytestmark = pytest.mark.timeout(120)  # a broker takes a while to start


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A broker."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


def test_child_that_is_killed(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, engine: FakeEngine, relay: Relay
) -> None:
    """The worker's master has the task delivered again, and it begins anew."""
    places = {"BROKER": redis_server.url, "REDIS": redis_server.url, "ENGINE": engine.url}
    engine.script(Text("old"), Stall())
    engine.script(*answer("new"))
    with (
        Worker(tmp_path, "prefork", 1, **places, QUEUE="killed") as worker,
        Caller(redis_server.url, client) as caller,
    ):
        worker.wait_ready()
        id = caller.send(queue="killed")
        with follow(relay, id) as follower:
            events = take(follower, 2)
            worker.kill_children()
            events += follower
        result = caller.result(id)
        worker.kill()

    assert kinds(events) == ["started", "token", "started", "token", "end"]
    assert result["result"]["text"] == "new"
    assert posts(engine)[0].hung_up.is_set()
    engine.wait_idle(SOON)


@pytest.mark.parametrize(
    ("pool", "how"),
    [("prefork", signal.SIGKILL), ("threads", signal.SIGKILL), ("prefork", signal.SIGQUIT)],
)
def test_worker_that_is_killed(
    tmp_path: Path,
    redis_server: RedisServer,
    rabbitmq: RabbitMQ,
    client: redis.Redis,
    engine: FakeEngine,
    relay: Relay,
    pool: str,
    how: signal.Signals,
) -> None:
    """With its machine, or by Celery's cold shutdown: the engine is freed, and another goes on."""
    places = {"BROKER": rabbitmq.url, "REDIS": redis_server.url, "ENGINE": engine.url}
    engine.script(Text("old"), Stall())
    engine.script(*answer("new"))
    with Worker(tmp_path, pool, 1, **places) as worker, Caller(rabbitmq.url, client) as caller:
        worker.wait_ready()
        id = caller.send()
        with follow(relay, id) as follower, Worker(tmp_path, pool, 1, **places) as other:
            events = take(follower, 2)
            other.wait_ready()
            worker.end(how)
            events += follower
            result = caller.result(id)

    assert kinds(events) == ["started", "token", "started", "token", "end"]
    assert texts(events) == "oldnew"
    assert result["result"]["text"] == "new"
    assert posts(engine)[0].hung_up.is_set()
    engine.wait_idle(SOON)


def test_redis_that_is_restarted(
    tmp_path: Path, own_redis: RedisServer, engine: FakeEngine, gate: threading.Event
) -> None:
    """As the broker, the results' store and the relay at once."""
    places = {"BROKER": own_redis.url, "REDIS": own_redis.url, "ENGINE": engine.url}
    words = [f" {number}" for number in range(100)]
    steps = [Text(word) for word in words]
    engine.script(*steps[:50], Wait(gate), *steps[50:], Finish(), Usage(), Done())
    with (
        Worker(tmp_path, "threads", 2, **places) as worker,
        redis.Redis.from_url(own_redis.url) as client,
        Caller(own_redis.url, client) as caller,
        Relay(own_redis.url) as relay,
    ):
        worker.wait_ready()
        id = caller.send()
        with follow(relay, id) as follower:
            events = take(follower, 51)
            own_redis.kill()
            gate.set()
            own_redis.start()
            events += follower
        result = caller.result(id)
        worker.kill()

    assert kinds(events) == ["started"] + ["token"] * 100 + ["end"]
    assert texts(events) == "".join(words)
    assert result["result"]["text"] == "".join(words)
    engine.wait_idle(SOON)
