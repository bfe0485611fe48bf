"""Tokens from a worker to a reader: all of them, once, in order, whenever the reader comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from forking import forks, in_a_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from relay.conftest import Publish
from relay.redis_server import RedisServer
from support import SOON, a_task, answer, kinds, the_error

from vllm_http import End, InvalidRequest, Started, Token, VllmHttpAdapter
from vllm_http.integrations.relay import Follower, Relay
from vllm_http.integrations.wsgi import sse, status_of
from vllm_http.testing import Done, FakeEngine, Finish, Text, Usage, Wait


WORDS = [f" {number}" for number in range(20)]


def said(follower: Follower) -> str:
    """All the text that a follower still gets."""
    return "".join(event.text for event in follower if isinstance(event, Token))


@pytest.fixture
def job(engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay) -> str:
    """A job whose twenty words are published already."""
    engine.script(*answer(*WORDS))
    stream = adapter.submit(a_task())
    relay.publish(stream)
    return stream.job_id


# All of it.


def test_follower_gets_what_the_stream_yields(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """The events arrive as the same values, with their indices and metrics."""
    stream = adapter.submit(a_task(max_tokens=3))
    completion = relay.publish(stream)
    events = list(relay.follow(stream.job_id))

    started, *tokens, end = events
    assert isinstance(started, Started)
    assert started.job_id == stream.job_id
    assert [token.index for token in tokens if isinstance(token, Token)] == [0, 1, 2]
    assert isinstance(end, End)
    assert end.metrics == completion.metrics
    assert end.finish_reason == completion.finish_reason == "length"


def test_publish_returns_the_whole(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """The worker has the answer as one value, to store as the task's result."""
    engine.script(*answer("Hello", " world"))
    completion = relay.publish(adapter.submit(a_task(job_id="whole")))

    assert (completion.job_id, completion.text) == ("whole", "Hello world")


def test_follower_before_the_first_event_waits(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """A web request may follow a task that no worker has taken yet."""
    engine.script(*answer("Hello"))
    with relay.follow("early") as follower:
        with pytest.raises(queue.Empty):
            follower.get(timeout=0.05)
        publish(adapter.submit(a_task(job_id="early")))

        assert kinds(follower) == ["started", "token", "end"]


def test_follower_in_mid_stream_gets_events_as_they_come(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    publish: Publish,
    gate: threading.Event,
) -> None:
    """A token is there before the next one is made."""
    engine.script(Text("Hello"), Wait(gate), Text(" world"), Finish(), Usage(), Done())
    publish(adapter.submit(a_task(job_id="middle")))
    with relay.follow("middle") as follower:
        assert isinstance(follower.get(timeout=SOON), Started)
        assert follower.get(timeout=SOON) == Token(text="Hello", index=0)
        with pytest.raises(queue.Empty):
            follower.get(timeout=0)
        gate.set()

        assert said(follower) == " world"


def test_follower_after_the_end_gets_all_and_ends(relay: Relay, job: str) -> None:
    """A finished job can be read until it expires; then iteration stops, and stays so."""
    follower = relay.follow(job)

    assert said(follower) == "".join(WORDS)
    assert follower.get() is None
    assert list(follower) == []


def test_every_follower_gets_all(relay: Relay, job: str) -> None:
    """Readers take nothing from each other."""
    assert {said(relay.follow(job)) for _ in range(3)} == {"".join(WORDS)}


def test_more_events_than_one_command_holds(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """Publisher and follower go on where a batch ends."""
    words = [f" {number}" for number in range(1000)]
    engine.script(*answer(*words))
    stream = adapter.submit(a_task())
    relay.publish(stream)

    assert said(relay.follow(stream.job_id)) == "".join(words)


class Counting(redis.Redis):
    """Counts its commands."""

    count = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


def test_events_of_an_interval_go_together(
    engine: FakeEngine, adapter: VllmHttpAdapter, redis_server: RedisServer
) -> None:
    """Where commands cost too much, they may be fewer; the events stay single."""
    engine.script(*[step for word in WORDS for step in (Text(word), Wait(0.01))], Finish(), Done())
    with Counting(port=redis_server.port) as client:
        relay = Relay(client, interval=0.1)
        stream = adapter.submit(a_task())
        relay.publish(stream)
        commands = client.count

        assert said(relay.follow(stream.job_id)) == "".join(WORDS)
    assert commands <= 8


# Coming back.


@pytest.mark.parametrize("seen", range(len(WORDS) + 3))
def test_reader_who_comes_back_gets_what_it_missed(relay: Relay, job: str, seen: int) -> None:
    """After each single event: nothing twice, nothing lost."""
    whole = list(relay.follow(job))
    with relay.follow(job) as follower:
        before = [follower.get(timeout=SOON) for _ in range(seen)]
        last_id = follower.last_id

    assert before + list(relay.follow(job, after=last_id)) == whole


def test_reader_who_comes_back_after_the_end_just_ends(relay: Relay, job: str) -> None:
    """A browser that reconnects after the last event is not made to wait."""
    follower = relay.follow(job)
    list(follower)

    assert relay.follow(job, after=follower.last_id).get(timeout=SOON) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 7), max_size=20))
def test_reader_who_comes_back_again_and_again(relay: Relay, job: str, visits: list[int]) -> None:
    """However often it leaves, and whatever it takes each time."""
    events, last_id = [], None
    for count in visits:
        with relay.follow(job, after=last_id) as follower:
            events += [event for _ in range(count) if (event := follower.get(timeout=SOON))]
            last_id = follower.last_id
    events += relay.follow(job, after=last_id)

    assert events == list(relay.follow(job))


@pytest.mark.parametrize("after", ["", "x", "1", "1-", "-1", "1-2-3", "1-2\n", "+1-2", "9" * 30])
def test_last_id_of_a_stranger_is_refused(relay: Relay, job: str, after: str) -> None:
    """It may come from anybody's browser, so nothing is raised: the reader is told, by an event."""
    with relay.follow(job, after=after) as follower:
        error = the_error(follower)

    assert isinstance(error, InvalidRequest)
    assert "after" in error.message
    assert (error.job_id, follower.last_id) == (job, None)


@pytest.mark.parametrize("job_id", ["", "x" * 10_000, "new\nline", "nul\0"])
def test_job_of_a_stranger_is_refused(relay: Relay, job_id: str) -> None:
    """So may a job's id, out of a URL."""
    error = the_error(relay.follow(job_id))

    assert isinstance(error, InvalidRequest)
    assert "job_id" in error.message


@pytest.mark.parametrize("of", ["later", "same"])
def test_last_id_that_was_never_given_out(relay: Relay, job: str, of: str) -> None:
    """A reader who claims to have seen what there never was isn't told that this was the end."""
    follower = relay.follow(job)
    assert kinds(follower)[-1] == "end"
    generation, _, number = str(follower.last_id).partition("-")
    after = f"{generation}-{int(number) + 1}" if of == "same" else f"{int(generation) + 1}-0"

    assert isinstance(the_error(relay.follow(job, after=after)), InvalidRequest)


def test_bad_last_id_in_a_view(relay: Relay, job: str) -> None:
    """A view may answer it with a status, or leave it to the body; neither raises anything else."""
    body = sse(relay.follow(job, after="garbage"))
    with pytest.raises(InvalidRequest) as caught:
        body.begin(timeout=0)

    assert status_of(caught.value)[0] == 400
    assert b"event: error" in b"".join(sse(relay.follow(job, after="garbage")))


# The follower.


def test_close_ends_a_get_in_another_thread(relay: Relay, publish: Publish) -> None:
    """A web server that shuts down does not wait for its readers."""
    follower = relay.follow("nobody")
    with pytest.raises(queue.Empty):
        follower.get(timeout=0)
    threading.Timer(0.05, follower.close).start()

    assert follower.get() is None


def test_follower_says_what_it_is(relay: Relay, job: str) -> None:
    """In a log one sees which job it reads and how far it is."""
    follower = relay.follow(job)
    assert repr(follower) == f"<Follower {job!r} at None>"
    follower.close()

    assert repr(follower) == f"<Follower {job!r} over>"


# The client.


@pytest.fixture(params=["protocol=2", "protocol=3", "decode_responses=True"])
def odd_client(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client that answers in other types."""
    with redis.Redis.from_url(f"{redis_server.url}?{request.param}") as client:
        yield client


def test_any_client_will_do(
    engine: FakeEngine, adapter: VllmHttpAdapter, odd_client: redis.Redis
) -> None:
    """The protocol, and whether replies are decoded, is the application's choice."""
    relay = Relay(odd_client)
    engine.script(*answer("Hello"))
    stream = adapter.submit(a_task())
    relay.publish(stream)
    follower = relay.follow(stream.job_id)
    last_id = [follower.get(), follower.last_id][1]

    assert isinstance(last_id, str)
    assert kinds(relay.follow(stream.job_id, after=last_id)) == ["token", "end"]


def test_url_will_do(redis_server: RedisServer, relay: Relay, job: str) -> None:
    """The usual way to configure Redis is a URL."""
    with Relay(redis_server.url) as by_url:
        assert said(by_url.follow(job)) == "".join(WORDS)


def test_close_leaves_the_applications_client_alone(
    client: redis.Redis, relay: Relay, job: str
) -> None:
    """Who made the connections closes them."""
    relay.close()

    assert client.ping()


@forks
def test_relay_works_in_a_forked_child(relay: Relay, job: str) -> None:
    """A relay that was used before the fork is good on both sides."""
    assert said(relay.follow(job)) == "".join(WORDS)

    assert in_a_child(lambda: said(relay.follow(job))) == "".join(WORDS)
    assert said(relay.follow(job)) == "".join(WORDS)


@pytest.mark.parametrize("name", ["maxlen", "expire", "lease", "outage", "interval"])
def test_limits_are_above_zero(client: redis.Redis, name: str) -> None:
    """A relay that could keep nothing is a mistake; only the interval may be 0."""
    for value in (0, -1, float("nan")) if name != "interval" else (-1, float("nan")):
        with pytest.raises(InvalidRequest, match=name):
            Relay(client, **{name: value})  # type: ignore[arg-type]


def test_prefix_keeps_relays_apart(client: redis.Redis, relay: Relay, job: str) -> None:
    """Two applications may share one Redis."""
    other = Relay(client, prefix="other:")

    with pytest.raises(queue.Empty):
        other.follow(job).get(timeout=0)
