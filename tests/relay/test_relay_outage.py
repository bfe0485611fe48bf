"""Redis goes away and comes back: nothing is lost or there twice, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry
from relay.conftest import Publish
from relay.redis_server import RedisServer
from support import SOON, a_task, answer, posts, stopwatch, the_error

from vllm_http import Completion, StreamingError, Token, VllmHttpAdapter
from vllm_http.integrations import _relay_failures
from vllm_http.integrations.relay import Relay
from vllm_http.testing import FakeEngine, Forever, Stall, Text


WORDS = [f" {number}" for number in range(12)]


@pytest.fixture
def own_relay(own_redis: RedisServer) -> Iterator[Relay]:
    """A relay through a server that this test may kill."""
    with Relay(own_redis.url, lease=2, outage=20) as relay:
        yield relay


# A real server that is killed.


def test_restart_in_mid_stream(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    own_redis: RedisServer,
    own_relay: Relay,
    publish: Publish,
) -> None:
    """Both ends go on where they were; the engine was slowed meanwhile."""
    engine.script(Forever(Text("word"), interval=0.001))
    future = publish(adapter.submit(a_task(job_id="restart")), by=own_relay)
    with own_relay.follow("restart") as follower:
        before = [follower.get(timeout=SOON) for _ in range(100)]
        own_redis.kill()
        own_redis.start()
        after = [follower.get(timeout=SOON) for _ in range(1000)]
        own_relay.cancel("restart")
    events = [event for event in before + after if isinstance(event, Token)]

    assert [token.index for token in events] == list(range(1099))
    assert future.result(SOON).finish_reason == "cancelled"
    engine.wait_idle(SOON)


def test_outage_that_lasts_frees_the_engine(
    engine: FakeEngine, adapter: VllmHttpAdapter, own_redis: RedisServer, publish: Publish
) -> None:
    """Patience is bounded on both ends, and the same task may be submitted again."""
    engine.script(Forever(Text("word"), interval=0.01))
    with (
        Relay(own_redis.url, outage=0.5) as relay,
        relay.follow("outage", patience=0.5) as follower,
        stopwatch() as watch,
    ):
        future = publish(adapter.submit(a_task(job_id="outage")), by=relay)
        follower.get(timeout=SOON)
        own_redis.kill()
        error = the_error(follower)
        failure = future.exception(SOON)

    assert posts(engine)[0].hung_up.wait(SOON)
    assert isinstance(failure, StreamingError)
    assert (failure.retriable, failure.job_id) == (True, "outage")
    assert isinstance(error, StreamingError)
    assert watch.seconds < 2 * SOON


def test_heartbeats_of_a_redis_that_hangs(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    own_redis: RedisServer,
    own_relay: Relay,
    publish: Publish,
) -> None:
    """A reader's `get` comes back soon after its timeout, and goes on when Redis does."""
    engine.script(Forever(Text("word"), interval=0.01))
    future = publish(adapter.submit(a_task(job_id="hung")), by=own_relay)
    with own_relay.follow("hung") as follower:
        events = [follower.get(timeout=SOON) for _ in range(10)]
        waits: list[float] = []
        with own_redis.hung():
            while len(waits) < 3:
                with stopwatch() as watch, contextlib.suppress(queue.Empty):
                    events.append(follower.get(timeout=1.0))
                waits.append(watch.seconds)
                if watch.seconds < 0.5:
                    waits.pop()  # an event that had come before
        events += [follower.get(timeout=SOON) for _ in range(1000)]
        own_relay.cancel("hung")
    indices = [event.index for event in events if isinstance(event, Token)]

    assert max(waits) < 2.5
    assert indices == list(range(len(indices)))
    assert future.result(SOON).finish_reason == "cancelled"


def test_cancel_without_redis_is_an_error(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who presses the button hears that it did nothing."""
    monkeypatch.setattr("vllm_http.integrations.relay._CANCEL_PATIENCE", 0.2)
    relay = Relay(own_redis.url)
    own_redis.kill()
    with pytest.raises(StreamingError, match="redis"):
        relay.cancel("unreachable")


def test_loss_of_all_data_is_noticed(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    client: redis.Redis,
    relay: Relay,
    publish: Publish,
) -> None:
    """A Redis that keeps nothing comes back empty: the worker fails, and may be retried."""
    engine.script(Text("Hello"), Stall())
    future = publish(adapter.submit(a_task(job_id="wiped")))
    with relay.follow("wiped") as follower:
        for _ in range(2):
            follower.get(timeout=SOON)
        client.delete("vllm-http:{wiped}:state", "vllm-http:{wiped}:events")
        failure = future.exception(SOON)
        error = the_error(follower)

    assert isinstance(failure, StreamingError)
    assert failure.retriable is True
    assert "gone" in error.message
    assert posts(engine)[0].hung_up.wait(SOON)


def test_loss_of_the_last_events_is_noticed(client: redis.Redis, relay: Relay) -> None:
    """A Redis that wrote to its disk too late has forgotten what it had acknowledged."""
    channel = relay._channel("torn")
    generation = channel.begin()
    with pytest.raises(StreamingError, match="lost"):
        channel.append(generation, 3, ["{}"], ended=False, lease=1)


# Single commands that get lost.


class Unreliable(redis.Redis):
    """Loses commands, or their replies, by their number among all."""

    lost_commands: frozenset[int]
    lost_replies: frozenset[int]
    count = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        if self.count in self.lost_commands:
            raise redis.ConnectionError("lost")
        reply: Any = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if self.count in self.lost_replies:
            raise redis.TimeoutError("no reply")
        return reply


@pytest.fixture
def unreliable(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes clients that lose things, and relays that do not pause then."""
    monkeypatch.setattr(_relay_failures, "_PAUSE", (0.001, 0.001))
    monkeypatch.setattr("vllm_http.integrations._relay_follower._PAUSE", 0.001)
    clients = []

    def make(commands: set[int], replies: set[int]) -> Relay:
        client = Unreliable(port=redis_server.port, retry=Retry(NoBackoff(), 0))
        client.lost_commands, client.lost_replies = frozenset(commands), frozenset(replies)
        clients.append(client)
        return Relay(client)

    yield make
    for client in clients:
        client.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.sets(st.integers(1, 12)), replies=st.sets(st.integers(1, 12)))
def test_publisher_sends_again_what_it_is_not_sure_of(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    unreliable: Callable[[set[int], set[int]], Relay],
    commands: set[int],
    replies: set[int],
) -> None:
    """Whichever commands or replies are lost, each event is there once."""
    engine.script(*answer(*WORDS))
    stream = adapter.submit(a_task())
    completion: Completion = unreliable(commands, replies).publish(stream)
    events = list(relay.follow(stream.job_id))

    assert [event.text for event in events if isinstance(event, Token)] == WORDS
    assert events[0].type == "started"
    assert completion.text == "".join(WORDS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.sets(st.integers(1, 12)), replies=st.sets(st.integers(1, 12)))
def test_follower_asks_again(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    unreliable: Callable[[set[int], set[int]], Relay],
    commands: set[int],
    replies: set[int],
) -> None:
    """Whichever reads fail, it gets each event once."""
    engine.script(*answer(*WORDS))
    stream = adapter.submit(a_task())
    relay.publish(stream)

    assert list(unreliable(commands, replies).follow(stream.job_id)) == list(
        relay.follow(stream.job_id)
    )


def test_each_outage_has_the_whole_patience(
    relay: Relay, unreliable: Callable[[set[int], set[int]], Relay]
) -> None:
    """That Redis was away some time ago takes nothing from the wait for it now."""
    channel = relay._channel("twice away")
    generation = channel.begin()
    channel.append(generation, 0, [Token("Hello", 0).to_json()], ended=False, lease=60)
    flaky: Any = unreliable({1}, set())
    follower = flaky.follow("twice away", patience=0.3)
    assert follower.get() == Token("Hello", 0)
    with pytest.raises(queue.Empty):
        follower.get(timeout=0.5)
    flaky._redis.lost_commands = {flaky._redis.count + 1}
    channel.append(generation, 1, [Token(" world", 1).to_json()], ended=False, lease=60)

    assert follower.get() == Token(" world", 1)
