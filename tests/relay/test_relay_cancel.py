"""`Relay.cancel`: from anywhere, at any time, the engine stops and followers see the end."""

from __future__ import annotations

import pytest
from relay.conftest import Publish
from relay.publishing import dead_publisher, take
from support import SOON, a_task, answer, kinds, posts, stopwatch, wait_until

from vllm_http import (
    End,
    InvalidRequest,
    VllmHttpAdapter,
)
from vllm_http.integrations.relay import Relay
from vllm_http.testing import FakeEngine, Forever, Stall, Text


def test_cancel_stops_the_engine_and_tells_followers(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """A reader's stop button frees the GPU, wherever the worker is."""
    engine.script(Text("Hello"), Stall())
    future = publish(adapter.submit(a_task(job_id="stop")))
    with relay.follow("stop") as follower:
        take(follower, 2)
        with stopwatch() as watch:
            relay.cancel("stop")
            rest = list(follower)

    assert [getattr(event, "finish_reason", None) for event in rest] == ["cancelled"]
    assert posts(engine)[0].hung_up.wait(SOON)
    assert future.result(SOON).finish_reason == "cancelled"
    assert watch.seconds < SOON


def test_cancel_reaches_a_busy_publisher(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """It comes back with the answer to the next events; no silence is needed."""
    engine.script(Forever(Text("word"), interval=0.002))
    future = publish(adapter.submit(a_task(job_id="busy")))
    (request,) = posts(engine)
    with relay.follow("busy") as follower:
        take(follower, 20)
        relay.cancel("busy")
        *_, last = follower

    assert isinstance(last, End)
    assert last.finish_reason == "cancelled"
    assert request.hung_up.wait(SOON)
    assert future.result(SOON).finish_reason == "cancelled"


def test_cancel_before_any_worker_has_begun(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """Followers need not wait for a task in the queue, and the task ends soon after it begins."""
    relay.cancel("queued")
    assert kinds(relay.follow("queued")) == ["end"]
    engine.script(Stall())
    completion = relay.publish(adapter.submit(a_task(job_id="queued")))

    assert completion.finish_reason == "cancelled"
    assert kinds(relay.follow("queued"))[-1:] == ["end"]
    engine.wait_idle(SOON)


def test_cancel_of_a_job_whose_worker_died(relay: Relay) -> None:
    """Whether it is noticed or not yet, followers see the end."""
    relay = Relay(relay._redis, lease=0.3)
    dead_publisher(relay, "died", "Hello")
    with relay.follow("died") as follower:
        take(follower, 1)
        relay.cancel("died")

        assert kinds(follower) == ["end"]


def test_cancel_of_a_job_whose_worker_is_long_dead(relay: Relay) -> None:
    """The one who cancels puts the end there, at once."""
    dead_publisher(relay, "long dead", "Hello")
    channel = relay._channel("long dead")
    wait_until(lambda: channel.look()[0] == "dead")
    relay.cancel("long dead")

    assert kinds(relay.follow("long dead")) == ["end"]


def test_cancel_after_the_end_changes_nothing(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """It was too late, and readers who come later still get the answer."""
    engine.script(*answer("Hello"))
    relay.publish(adapter.submit(a_task(job_id="late")))
    relay.cancel("late")
    relay.cancel("late")

    *_, end = relay.follow("late")
    assert isinstance(end, End)
    assert end.finish_reason == "stop"


def test_cancel_refuses_what_is_no_job(relay: Relay) -> None:
    """A job's id becomes a key."""
    with pytest.raises(InvalidRequest, match="job_id"):
        relay.cancel("")


def test_stream_closed_elsewhere_ends_as_cancelled(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """A stream that its owner closes just stops; followers want an end."""
    engine.script(Text("Hello"), Stall())
    stream = adapter.submit(a_task())
    future = publish(stream)
    with relay.follow(stream.job_id) as follower:
        take(follower, 2)
        stream.close()

        assert kinds(follower) == ["end"]
    assert future.result(SOON).finish_reason == "cancelled"
