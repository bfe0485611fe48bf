"""What a relay is made of, and what its Redis and its client can bear: told or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry
from relay.conftest import Publish
from relay.publishing import take
from relay.redis_server import RedisServer
from support import SOON, a_task, answer, stopwatch, the_error

from vllm_http import End, InvalidRequest, Metrics, StreamingError, Token, VllmHttpAdapter
from vllm_http.integrations._relay_publisher import Publisher
from vllm_http.integrations.relay import Relay
from vllm_http.testing import FakeEngine, Forever, Text


# Connections.


def test_hundreds_of_readers_wait_at_once(redis_server: RedisServer) -> None:
    """A relay made from a URL has no limit of its own, and a cancel gets through as well."""
    count = 300
    with Relay(redis_server.url) as relay, ThreadPoolExecutor(count) as threads:
        all_wait = threading.Barrier(count + 1)

        def read() -> str:
            with relay.follow("popular", patience=SOON) as follower:
                all_wait.wait(SOON)
                return "".join(event.text for event in follower if isinstance(event, Token))

        readers = [threads.submit(read) for _ in range(count)]
        all_wait.wait(SOON)
        channel = relay._channel("popular")
        generation = channel.begin()
        words = [Token(word, index).to_json() for index, word in enumerate("abc")]
        for position, word in enumerate(words):
            channel.append(generation, position, [word], ended=False, lease=60)
        relay.cancel("another")
        channel.append(generation, 3, [End(Metrics(), "stop").to_json()], ended=True, lease=0)

        assert {reader.result(SOON) for reader in readers} == {"abc"}


@pytest.fixture(params=[redis.ConnectionPool, redis.BlockingConnectionPool])
def full(request: pytest.FixtureRequest, redis_server: RedisServer) -> Any:
    """A client whose one connection is taken."""
    options = {"timeout": 0.01} if request.param is redis.BlockingConnectionPool else {}
    pool = request.param(port=redis_server.port, max_connections=1, **options)
    with redis.Redis(connection_pool=pool) as client:
        connection = pool.get_connection()
        yield client
        pool.release(connection)
        pool.disconnect()


def test_pool_that_is_full_is_told(full: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is there; what is missing is told, with the option that helps."""
    monkeypatch.setattr("vllm_http.integrations.relay._CANCEL_PATIENCE", 0.1)
    relay = Relay(full)
    with pytest.raises(StreamingError, match="max_connections"):
        relay.cancel("any")
    error = the_error(relay.follow("any", patience=0.2))

    assert "max_connections" in error.message
    assert error.retriable is True


# Refusals.


PASSING = [
    redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    ResponseError(
        "Error running script (call to f_0): @user_script:3: @user_script: 3: "
        "-READONLY You can't write against a read only replica."
    ),
    redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
    ResponseError(
        "Error running script (call to f_0): @user_script:3: @user_script: 3: "
        "-LOADING Redis is loading the dataset in memory"
    ),
    ResponseError("NOREPLICAS Not enough good replicas to write."),
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    ResponseError("-OOM command not allowed when used memory > 'maxmemory'."),
    ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's unable to"),
    ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
    ResponseError("BUSY Redis is busy running a script."),
    redis.exceptions.RedisClusterException("Redis Cluster cannot be connected."),
    redis.exceptions.SlotNotCoveredError('Command # 1 (GET a) "slot" is not covered'),
    redis.exceptions.ClusterError("TTL exhausted."),
]


class Refusing(redis.Redis):
    """Refuses the commands from the fourth on, for a while or for good."""

    refusal: Exception
    last = 10
    count = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        if 4 <= self.count <= self.last:
            raise self.refusal
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.fixture
def refusing(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes clients that refuse, and relays that do not pause then."""
    monkeypatch.setattr("vllm_http.integrations._relay_failures._PAUSE", (0.001, 0.001))
    monkeypatch.setattr("vllm_http.integrations._relay_follower._PAUSE", 0.001)
    clients = []

    def make(refusal: Exception, last: int = 10) -> Refusing:
        client = Refusing(port=redis_server.port, retry=Retry(NoBackoff(), 0))
        client.refusal, client.last = refusal, last
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize("refusal", PASSING, ids=str)
def test_refusal_that_passes(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    refusing: Callable[..., Refusing],
    refusal: Exception,
) -> None:
    """It is waited for on both ends, as an outage is; nothing is lost."""
    engine.script(*answer("Hello"))
    stream = adapter.submit(a_task())
    completion = Relay(refusing(refusal)).publish(stream)
    events = list(Relay(refusing(refusal)).follow(stream.job_id))

    assert completion.text == "Hello"
    assert events == list(relay.follow(stream.job_id))


@pytest.mark.parametrize("refusal", PASSING, ids=str)
def test_refusal_that_does_not_pass(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    refusing: Callable[..., Refusing],
    refusal: Exception,
) -> None:
    """It ends with both ends' patience, and the same task may be submitted again."""
    engine.script(Forever(Text("word"), interval=0.01))
    stream = adapter.submit(a_task())
    with pytest.raises(StreamingError) as raised:
        Relay(refusing(refusal, 10**6), outage=0.2).publish(stream)
    relay = Relay(refusing(refusal, 10**6))
    error = the_error(relay.follow("refused", patience=0.2))

    assert raised.value.retriable is error.retriable is True


def test_followers_hear_of_a_publisher_that_gave_up(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    refusing: Callable[..., Refusing],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, if Redis takes that word: nobody waits for the lease and for another worker."""
    engine.script(Text("Hello"), Forever(Text("word"), interval=0.01))
    client = refusing(ResponseError("NOREPLICAS Not enough good replicas to write."), 10**6)
    stream = adapter.submit(a_task())
    told = Publisher._give_up

    def back(publisher: Publisher, error: Any) -> None:
        client.last = 0
        told(publisher, error)

    monkeypatch.setattr(Publisher, "_give_up", back)
    with pytest.raises(StreamingError), stopwatch() as watch:
        Relay(client, outage=0.2).publish(stream)
    error = the_error(relay.follow(stream.job_id))

    assert isinstance(error, StreamingError)
    assert error.retriable is True
    assert "NOREPLICAS" in error.message
    assert watch.seconds < SOON


@pytest.mark.parametrize(
    "refusal",
    [
        AuthenticationError("invalid username-password pair or user is disabled."),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        redis.exceptions.NoPermissionError("this user has no permissions to run 'evalsha'"),
        ResponseError("value is no-READONLYish"),
    ],
    ids=str,
)
def test_refusal_for_good(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    refusing: Callable[..., Refusing],
    refusal: Exception,
) -> None:
    """No waiting mends it."""
    engine.script(Forever(Text("word"), interval=0.01))
    with pytest.raises(StreamingError) as raised, stopwatch() as watch:
        Relay(refusing(refusal, 10**6)).publish(adapter.submit(a_task()))

    assert raised.value.retriable is False
    assert watch.seconds < SOON


def test_memory_that_is_full(
    engine: FakeEngine, adapter: VllmHttpAdapter, own_redis: RedisServer, publish: Publish
) -> None:
    """A real server over its maxmemory: publishing goes on when it has room again."""
    engine.script(Forever(Text("word"), interval=0.001))
    with Relay(own_redis.url) as relay, redis.Redis(port=own_redis.port) as client:
        future = publish(adapter.submit(a_task(job_id="full")), by=relay)
        with relay.follow("full") as follower:
            take(follower, 10)
            client.config_set("maxmemory", "1")
            client.config_set("maxmemory-policy", "noeviction")
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.set("a", "b")
            client.config_set("maxmemory", "0")
            take(follower, 200)
            relay.cancel("full")

        assert future.result(SOON).finish_reason == "cancelled"


# Arguments.


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"interval": 6.0, "lease": 10.0}, ["interval", "6", "10"]),
        ({"expire": 5.0, "lease": 10.0}, ["expire", "5", "10"]),
        ({"maxlen": 255}, ["maxlen", "255", "256"]),
        ({"maxlen": 1000.5}, ["maxlen", "1000.5"]),
        ({"expire": float("inf")}, ["expire", "inf"]),
        ({"lease": 1e300, "expire": 1e300}, ["1e+300"]),
        ({"outage": "30"}, ["outage", "'30'"]),
        ({"interval": None}, ["interval", "None"]),
        ({"lease": True}, ["lease", "True"]),
    ],
)
def test_arguments_that_cannot_work(
    client: redis.Redis, options: dict[str, Any], numbers: list[str]
) -> None:
    """They are refused when the relay is made, with the numbers."""
    with pytest.raises(InvalidRequest) as caught:
        Relay(client, **options)

    assert [number for number in numbers if number not in caught.value.message] == []


def test_interval_near_its_limit_leaves_the_publisher_alive(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis, publish: Publish
) -> None:
    """What is allowed works: followers do not take a worker for dead that lives."""
    relay = Relay(client, lease=0.6, expire=0.6, interval=0.3)
    engine.script(Forever(Text("word"), interval=0.01))
    future = publish(adapter.submit(a_task(job_id="slow")), by=relay)
    with relay.follow("slow", patience=0.05) as follower:
        seen = take(follower, 300)
        relay.cancel("slow")
        *_, last = follower

    assert seen == ["started"] + ["token"] * 299
    assert isinstance(last, End)
    assert future.result(SOON).finish_reason == "cancelled"


@pytest.mark.parametrize("job_id", ["}x", "{x", "{}", "a}b{c", "%7D", "{{}}"])
@pytest.mark.parametrize("prefix", ["vllm-http:", "", "{", "{}", "a{}b", "{app}:", "}{", "{{}}"])
def test_keys_of_a_job_are_in_one_slot(client: redis.Redis, prefix: str, job_id: str) -> None:
    """Of a cluster, whatever the names are; and no two jobs share one."""
    relay = Relay(client, prefix=prefix)
    slots = {key_slot(key) for key in relay._channel(job_id)._keys}
    others = {tuple(relay._channel(other)._keys) for other in ("}x", "%7Dx", "%257Dx")}

    assert len(slots) == 1
    assert len(others) == 3


# Clients.


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "latin-1"},
        {"encoding": "ascii", "encoding_errors": "replace"},
        {"encoding": "cp1252", "decode_responses": False},
        {"encoding": "utf8", "decode_responses": True},
    ],
    ids=str,
)
def test_encoding_of_a_client_is_its_own_affair(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    redis_server: RedisServer,
    relay: Relay,
    options: dict[str, Any],
) -> None:
    """What it says for the application's values changes nothing of the events."""
    engine.script(*answer("Grüße, 世界 🌍"))
    with redis.Redis(port=redis_server.port, **options) as client:
        stream = adapter.submit(a_task(job_id=f"encoded {options['encoding']}"))
        completion = Relay(client).publish(stream)
        events = list(Relay(client).follow(stream.job_id))

    assert events == list(relay.follow(stream.job_id))
    assert "".join(event.text for event in events if isinstance(event, Token)) == completion.text


def test_half_a_surrogate_pair_is_relayed(relay: Relay) -> None:
    """A model may say it, and UTF-8 has no form for it; JSON has."""
    channel = relay._channel("half")
    words = Token("\udc80", 0), End(Metrics(), "stop")
    channel.append(channel.begin(), 0, [word.to_json() for word in words], ended=True, lease=0)

    assert list(relay.follow("half")) == list(words)


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "latin-1", "decode_responses": True},
        {"encoding": "ascii", "decode_responses": True},
        {"encoding": "utf-16"},
        {"encoding": "no such"},
    ],
    ids=str,
)
def test_client_that_cannot_read_events_is_refused(options: dict[str, Any]) -> None:
    """When the relay is made, not in mid-stream."""
    with redis.Redis(**options) as client, pytest.raises(InvalidRequest, match="encoding"):
        Relay(client)
