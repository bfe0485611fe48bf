"""A task that is begun anew: readers can tell, and of two workers only the later one is heard."""

from __future__ import annotations

import queue
import threading

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from relay.conftest import Publish
from support import SOON, a_task, answer, kinds, posts, the_error

from vllm_http import Started, StreamingError, Token, TokenEvent, VllmHttpAdapter, WorkerError
from vllm_http.integrations.relay import Relay, Superseded
from vllm_http.testing import Cut, Done, FakeEngine, Finish, Stall, Text, Usage, Wait


@pytest.fixture
def other(engine: FakeEngine) -> VllmHttpAdapter:
    """The adapter of another worker process."""
    return VllmHttpAdapter(engine.url)


def texts(events: list[TokenEvent]) -> list[str]:
    """What the tokens say, and where the stream began."""
    return [
        event.text if isinstance(event, Token) else event.type
        for event in events
        if isinstance(event, (Started, Token))
    ]


# Two workers.


def test_second_worker_takes_over(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """The first is told so and its engine request ends; readers see a second `Started`."""
    engine.script(Text("old"), Stall())
    engine.script(*answer("new"))
    first = publish(adapter.submit(a_task(job_id="twice")))
    with relay.follow("twice") as follower, VllmHttpAdapter(engine.url) as other:
        seen = [follower.get(timeout=SOON), follower.get(timeout=SOON)]
        second = publish(other.submit(a_task(job_id="twice")))
        seen += follower

    assert texts([event for event in seen if event]) == ["started", "old", "started", "new"]
    assert second.result(SOON).text == "new"
    assert isinstance(first.exception(SOON), Superseded)
    assert posts(engine)[0].hung_up.wait(SOON)
    assert texts(list(relay.follow("twice"))) == ["started", "new"]


def test_second_worker_takes_over_from_a_busy_one(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    relay: Relay,
    publish: Publish,
    gate: threading.Event,
) -> None:
    """What the first had still to say is void, its `End` too."""
    engine.script(Text("old"), Wait(gate), Text("void"), Finish(), Usage(), Done())
    engine.script(Text("new"), Stall())
    first = publish(adapter.submit(a_task(job_id="busy twice")))
    with relay.follow("busy twice") as follower, VllmHttpAdapter(engine.url) as other:
        seen = [follower.get(timeout=SOON), follower.get(timeout=SOON)]
        second = publish(other.submit(a_task(job_id="busy twice")))
        seen += [follower.get(timeout=SOON), follower.get(timeout=SOON)]
        gate.set()
        assert isinstance(first.exception(SOON), Superseded)
        relay.cancel("busy twice")
        *_, end = follower

    assert texts([event for event in seen if event]) == ["started", "old", "started", "new"]
    assert end.type == "end"
    assert second.result(SOON).finish_reason == "cancelled"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30))
def test_only_the_latest_generation_is_heard(
    client: redis.Redis, relay: Relay, steps: list[tuple[int, int]]
) -> None:
    """Three workers begin (0) and append (1 to 3 events) in any order."""
    channel = relay._channel("race")
    client.delete("vllm-http:{race}:state", "vllm-http:{race}:events")
    mine: dict[int, tuple[str, int]] = {}
    kept: list[str] = []
    latest = None
    for worker, count in steps:
        if count == 0 or worker not in mine:
            mine[worker], kept, latest = (channel.begin(), 0), [], worker
            continue
        generation, sent = mine[worker]
        events = [f"{worker}: {sent + n}" for n in range(count)]
        if worker != latest:
            with pytest.raises(Superseded):
                channel.append(generation, sent, events, ended=False, lease=1)
        else:
            channel.append(generation, sent, events, ended=False, lease=1)
            mine[worker] = generation, sent + count
            kept += events

    assert [value for _, value in channel.read(None)] == [event.encode() for event in kept]


def test_reader_who_comes_back_after_a_new_begin_gets_all_of_it(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """An id of the first round is a good place to go on from."""
    for word in ("old", "new"):
        engine.script(*answer(word))
        with relay.follow("rounds") as follower:
            relay.publish(adapter.submit(a_task(job_id="rounds")))
            if word == "old":
                follower.get()
                last_id = follower.last_id

    assert texts(list(relay.follow("rounds", after=last_id))) == ["started", "new"]


def test_reader_waits_for_the_second_worker(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """A redelivery within its patience, after the first one's death, is all it needs."""
    channel = relay._channel("redelivered")
    generation = channel.begin()
    channel.append(generation, 0, [Token("old", 0).to_json()], ended=False, lease=0.0)
    engine.script(*answer("new"))
    with relay.follow("redelivered") as follower:
        assert follower.get(timeout=SOON) is not None
        publish(adapter.submit(a_task(job_id="redelivered")))

        assert texts(list(follower)) == ["started", "new"]


def test_cancel_outlives_the_worker(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """A task that is redelivered after it was cancelled is cancelled still."""
    channel = relay._channel("stubborn")
    channel.begin()
    relay.cancel("stubborn")
    engine.script(Stall())
    completion = relay.publish(adapter.submit(a_task(job_id="stubborn")))

    assert completion.finish_reason == "cancelled"


# Retries.


def test_followers_wait_for_a_retry(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay, publish: Publish
) -> None:
    """Of a failure that is tried again they hear nothing but the second `Started`."""
    engine.script(Text("old"), Cut("fin"))
    engine.script(*answer("new"))
    with relay.follow("again", patience=0.1) as follower:
        first = publish(adapter.submit(a_task(job_id="again")), retry_in=lambda error: 2.0)
        assert isinstance(first.exception(SOON), StreamingError)
        seen = [follower.get(timeout=SOON), follower.get(timeout=SOON)]
        with pytest.raises(queue.Empty):
            follower.get(timeout=1.9)  # beyond the lease and its own patience
        publish(adapter.submit(a_task(job_id="again")))
        seen += follower

    assert texts([event for event in seen if event]) == ["started", "old", "started", "new"]


def test_followers_hear_of_the_last_failure(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """`retry_in` gets the error, and says None when it was the last try."""
    asked: list[WorkerError] = []
    engine.script(Text("old"), Cut("fin"))
    with pytest.raises(StreamingError) as raised:
        relay.publish(adapter.submit(a_task(job_id="last")), retry_in=asked.append)

    assert asked == [raised.value]
    assert kinds(relay.follow("last")) == ["started", "token", "error"]


def test_retry_that_never_comes_is_an_error(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """The promise of another try holds for as long as it said."""
    engine.script(Text("old"), Cut("fin"))
    with pytest.raises(StreamingError):
        relay.publish(adapter.submit(a_task(job_id="never")), retry_in=lambda error: 0.0)
    error = the_error(relay.follow("never", patience=0.1))

    assert isinstance(error, StreamingError)
    assert "died" in error.message
