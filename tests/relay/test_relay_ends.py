"""How a followed stream ends when not by itself: failed, orphaned, trimmed, expired."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from relay.conftest import Publish
from relay.publishing import dead_publisher, interrupted, take
from support import SOON, a_task, answer, kinds, posts, stopwatch, the_error, wait_until

from vllm_http import (
    End,
    Error,
    Metrics,
    StreamingError,
    Timeout,
    Token,
    VllmHttpAdapter,
)
from vllm_http.integrations.relay import Relay
from vllm_http.testing import Cut, Done, FakeEngine, Finish, Stall, Text, Usage, Wait


# Failures.


def test_error_of_the_stream_reaches_both_ends(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """Followers get the event, and the worker gets it raised, with what had come."""
    engine.script(Text("Hello"), Cut("fin"))
    with pytest.raises(StreamingError) as raised:
        relay.publish(adapter.submit(a_task(job_id="cut")))

    events = list(relay.follow("cut"))
    assert kinds(events) == ["started", "token", "error"]
    assert the_error(events).to_dict() == {**raised.value.to_dict(), "partial": None}
    assert raised.value.partial is not None
    assert raised.value.partial.text == "Hello"


class _SoftLimit(Exception):
    """What Celery raises inside a task."""


def test_worker_that_is_interrupted_says_so(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """A time limit ends the task for good: followers hear it at once, and the GPU is free."""
    engine.script(Text("Hello"), Stall())
    with pytest.raises(_SoftLimit):
        relay.publish(interrupted(adapter.submit(a_task(job_id="limit")), _SoftLimit()))

    events = list(relay.follow("limit"))
    assert kinds(events) == ["started", "token", "error"]
    assert "_SoftLimit" in the_error(events).message
    assert posts(engine)[0].hung_up.wait(SOON)


def test_worker_that_is_told_to_exit_leaves_its_place(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis
) -> None:
    """Another may get the task, so it says nothing; but nobody waits for its lease to run out."""
    relay = Relay(client, lease=600)
    engine.script(Text("Hello"), Stall())
    with pytest.raises(SystemExit):
        relay.publish(interrupted(adapter.submit(a_task(job_id="exit")), SystemExit()))

    events = list(relay.follow("exit", patience=0.1))
    assert kinds(events) == ["started", "token", "error"]
    assert posts(engine)[0].hung_up.wait(SOON)


# Nobody there.


def test_dead_worker_is_told_in_bounded_time(relay: Relay) -> None:
    """Its lease runs out, none takes its place, and the reader may submit the task again."""
    dead_publisher(relay, "dead", "Hello", " world")
    with stopwatch() as watch:
        events = list(relay.follow("dead", patience=0.3))
    error = the_error(events)

    assert kinds(events) == ["token", "token", "error"]
    assert isinstance(error, StreamingError)
    assert (error.retriable, error.job_id, error.code) == (True, "dead", "WORKER_RESET")
    assert 0.8 < watch.seconds < SOON


def test_silent_worker_is_not_taken_for_dead(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    publish: Publish,
    gate: threading.Event,
) -> None:
    """The lease is renewed while the engine is silent."""
    relay = Relay(relay._redis, lease=0.2)
    engine.script(Text("Hello"), Stall())
    future = publish(adapter.submit(a_task(job_id="silent")), by=relay)
    with relay.follow("silent", patience=0.1) as follower:
        take(follower, 2)
        with pytest.raises(queue.Empty):
            follower.get(timeout=1.0)
    relay.cancel("silent")

    assert future.result(SOON).finish_reason == "cancelled"


def test_job_that_nobody_begins(relay: Relay) -> None:
    """An unknown id is not waited for any longer than the reader wants."""
    with stopwatch() as watch:
        error = the_error(relay.follow("unknown", patience=0.2))

    assert isinstance(error, Timeout)
    assert (error.phase, error.retriable) == ("queued", True)
    assert 0.2 <= watch.seconds < SOON


def test_patience_goes_on_over_several_gets(relay: Relay) -> None:
    """A reader that looks in between at something else gets the error all the same."""
    follower = relay.follow("unknown as well", patience=0.3)
    begin = time.monotonic()
    event = None
    while event is None:
        try:
            event = follower.get(timeout=0.05)
        except queue.Empty:
            assert time.monotonic() - begin < SOON

    assert isinstance(event, Error)
    assert follower.get() is None


def test_patience_begins_anew_after_an_event(relay: Relay) -> None:
    """Long waiting for the first worker takes nothing from the wait for the second."""
    follower = relay.follow("slow start", patience=2.0)
    with pytest.raises(queue.Empty):
        follower.get(timeout=0.5)  # far from 2 s, however late a busy machine wakes up
    relay = Relay(relay._redis, lease=0.001)
    dead_publisher(relay, "slow start", "Hello")
    take(follower, 1)
    with stopwatch() as watch:
        the_error(follower)

    assert 1.9 < watch.seconds < SOON


def test_end_that_comes_between_two_looks_is_not_missed(relay: Relay) -> None:
    """That a job has ended is believed only once nothing is left to read."""
    channel = relay._channel("between")
    generation = channel.begin()
    channel.append(generation, 0, [Token("Hello", 0).to_json()], ended=False, lease=60)
    follower = relay.follow("between")
    follower.get()
    look = follower._channel.look

    def look_late() -> Any:
        end = End(Metrics(), "stop").to_json()
        channel.append(generation, 1, [end], ended=True, lease=0)
        return look()

    follower._channel.look = look_late  # type: ignore[method-assign]

    assert isinstance(follower.get(timeout=0), End)


# Gone.


def test_job_is_kept_for_as_long_as_it_is_published(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    publish: Publish,
    gate: threading.Event,
) -> None:
    """It expires so long after its last event, not after its first, and silence is no end."""
    relay = Relay(relay._redis, expire=0.6, lease=0.3)
    engine.script(Text("Hello"), Wait(gate), Text(" world"), Finish(), Usage(), Done())
    future = publish(adapter.submit(a_task(job_id="kept")), by=relay)
    with relay.follow("kept") as follower:
        take(follower, 2)
        with pytest.raises(queue.Empty):
            follower.get(timeout=1.5)
        gate.set()

        assert kinds(follower) == ["token", "end"]
    assert future.result(SOON).text == "Hello world"


def test_trimmed_events_are_not_skipped(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis
) -> None:
    """A reader that is too late for the beginning is told so, and gets no torso."""
    relay = Relay(client, maxlen=256)
    engine.script(*answer(*"abcdefghij" * 30))
    relay.publish(adapter.submit(a_task(job_id="long")))
    error = the_error(relay.follow("long"))

    assert isinstance(error, StreamingError)
    assert "trimmed" in error.message
    assert client.xlen("vllm-http:{long}:events") == 256


def test_trim_is_noticed_wherever_the_reader_was(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis
) -> None:
    """A reader that comes back gets all it missed, if the very next event is still there."""
    relay = Relay(client)
    engine.script(*answer(*"abcdefghij"))
    relay.publish(adapter.submit(a_task(job_id="long-one")))
    with relay.follow("long-one") as follower:
        ids = [follower.last_id for _ in follower]
    client.xtrim("vllm-http:{long-one}:events", maxlen=5, approximate=False)
    rests = [kinds(relay.follow("long-one", after=id)) for id in ids]

    assert rests[:6] == [["error"]] * 6
    assert [len(rest) for rest in rests[6:]] == [5, 4, 3, 2, 1, 0]


def test_expired_job_is_an_error_for_who_comes_back(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis
) -> None:
    """It is said at once: a stream that was there once is not waited for."""
    relay = Relay(client, expire=0.2, lease=0.1)
    engine.script(*answer("Hello"))
    relay.publish(adapter.submit(a_task(job_id="old")))
    with relay.follow("old") as follower:
        take(follower, 1)
        wait_until(lambda: client.exists("vllm-http:{old}:state", "vllm-http:{old}:events") == 0)
    error = the_error(relay.follow("old", after=follower.last_id))

    assert isinstance(error, StreamingError)
    assert "expired" in error.message


def test_ended_job_without_its_events_is_an_error(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis, relay: Relay
) -> None:
    """A Redis that is short of memory may drop one key and keep the other."""
    engine.script(*answer("Hello"))
    relay.publish(adapter.submit(a_task(job_id="evicted")))
    client.delete("vllm-http:{evicted}:events")
    error = the_error(relay.follow("evicted"))

    assert "gone" in error.message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, key: client.set(key, "no stream"),
        lambda client, key: client.xadd(key, {"event": "no JSON"}, id="9999999999999-0"),
    ],
)
def test_foreign_data_under_the_key_is_an_error(
    client: redis.Redis, relay: Relay, spoil: Callable[[redis.Redis, str], object]
) -> None:
    """Somebody else's key, or another version's event: the stream ends, and says why."""
    spoil(client, f"vllm-http:{{foreign-{id(spoil)}}}:events")
    error = the_error(relay.follow(f"foreign-{id(spoil)}"))

    assert error.retriable is False
