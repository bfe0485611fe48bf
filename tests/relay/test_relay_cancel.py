"""`Relay.cancel`: from anywhere, at any time, the engine stops and followers see the end."""

from __future__ import annotations

import pytest
from relay.conftest import Publish
from relay.publishing import dead_publisher, interrupted, take
from support import (
    SOON,
    a_task,
    answer,
    kinds,
    posts,
    stopwatch,
    the_error,
    the_partial,
    wait_until,
)

from vllm_http import AdapterClosed, End, InvalidRequest, Token, VllmHttpAdapter
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


def test_stream_closed_elsewhere_fails(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """A stream that is closed under its publisher has no end: both ends are told so."""
    engine.script(Text("Hello"), Stall())
    stream = adapter.submit(a_task())
    future = publish(stream)
    with relay.follow(stream.job_id) as follower:
        take(follower, 2)
        stream.close()

        assert isinstance(the_error(follower), AdapterClosed)
    with pytest.raises(AdapterClosed) as caught:
        future.result(SOON)
    assert the_partial(caught.value) == "Hello"


@pytest.mark.parametrize("interruption", [SystemExit, KeyboardInterrupt])
def test_cancel_of_an_interrupted_worker_tells_the_tokens(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, interruption: type[BaseException]
) -> None:
    """As a revoke does it: the process is told to exit, and then the end is put by another."""
    engine.script(Text("a"), Text("b"), Text("c"), Stall())
    stream = adapter.submit(a_task(job_id=f"revoked by {interruption.__name__}"))
    with pytest.raises(interruption):
        relay.publish(interrupted(stream, interruption()))
    relay.cancel(stream.job_id)

    *_, end = relay.follow(stream.job_id)
    assert isinstance(end, End)
    assert (end.finish_reason, end.metrics.tokens_generated) == ("cancelled", 3)


def test_cancel_of_a_killed_worker_tells_the_tokens(relay: Relay) -> None:
    """Nobody asked it any more, but it told the count with each event."""
    engine_tokens = 5
    channel = relay._channel("killed")
    generation = channel.begin()
    event = Token("Hello", 0).to_json()
    channel.append(generation, 0, [event], ended=False, lease=0, tokens=engine_tokens)
    relay.cancel("killed")

    (end,) = relay.follow("killed")
    assert isinstance(end, End)
    assert end.metrics.tokens_generated == engine_tokens


def test_cancel_of_a_job_begun_anew_tells_its_own_tokens(relay: Relay) -> None:
    """The generation before it does not count."""
    channel = relay._channel("anew")
    old = channel.begin()
    channel.append(old, 0, [Token("Hello", 0).to_json()], ended=False, lease=0, tokens=5)
    channel.append(channel.begin(), 0, [], ended=False, lease=0)
    relay.cancel("anew")

    (end,) = relay.follow("anew")
    assert isinstance(end, End)
    assert end.metrics.tokens_generated == 0
