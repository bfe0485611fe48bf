"""What comes late or twice: a begin, a cancel, a worker that was stopped for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import redis
from relay.conftest import Publish
from relay.publishing import take
from relay.redis_server import RedisServer
from support import SOON, a_task, answer, kinds, stopwatch, the_error, wait_until

from vllm_http import Completion, End, Token, TokenStream, VllmHttpAdapter
from vllm_http.integrations import _relay_channel
from vllm_http.integrations.relay import Relay, Superseded
from vllm_http.testing import Cut, FakeEngine, Stall, Step, Text, Wait


# A begin.


class Repeating(redis.Redis):
    """Delivers every begin once more, after so many other commands."""

    later = 0
    held: tuple[int, tuple[Any, ...]] | None = None
    count = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        reply = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if self.held is not None and self.count >= self.held[0]:
            super().execute_command(*self.held[1])  # type: ignore[no-untyped-call]
            self.held = None
        if args[0] == "EVALSHA" and args[1] == self.sha():
            self.held = self.count + self.later, args
        return reply

    def sha(self) -> Any:
        return self.register_script(_relay_channel._BEGIN).sha


@pytest.mark.parametrize("later", range(5))
def test_begin_that_is_delivered_again(
    engine: FakeEngine, adapter: VllmHttpAdapter, redis_server: RedisServer, later: int
) -> None:
    """By a proxy or a network, at whatever time: the job goes on as if it had not been."""
    engine.script(*[step for word in "abc" for step in (Text(word), Wait(0.01))], *answer("d"))
    with Repeating(port=redis_server.port) as client:
        client.later = later
        relay = Relay(client)
        completion = relay.publish(adapter.submit(a_task(job_id=f"repeated {later}")))

        assert completion.text == "abcd"
        assert kinds(relay.follow(f"repeated {later}"))[-2:] == ["token", "end"]
        assert client.held is None


def test_begin_that_is_late_takes_nothing_from_a_successor(relay: Relay) -> None:
    """A publisher that is long gone begins when another one publishes: the other one goes on."""
    channel = relay._channel("late begin")
    first = channel.begin("first")
    second = channel.begin("second")
    channel.append(second, 0, [Token("a", 0).to_json()], ended=False, lease=60)

    assert channel.begin("first") == first
    channel.append(second, 1, [Token("b", 1).to_json()], ended=False, lease=60)
    with pytest.raises(Superseded):
        channel.append(first, 0, [], ended=False, lease=60)
    assert take(relay.follow("late begin"), 2) == ["token", "token"]


def test_begin_that_came_never_before_succeeds_only_what_it_knew(relay: Relay) -> None:
    """Its first delivery may be the late one: it says which generation it means to succeed."""
    channel = relay._channel("never begun")
    held: list[Callable[[], Any]] = []
    run = channel._run

    def hold(script: str, *arguments: Any) -> Any:
        if script == _relay_channel._BEGIN and not held:
            held.append(lambda: run(script, *arguments))
            raise redis.TimeoutError
        return run(script, *arguments)

    channel._run = hold  # type: ignore[method-assign]
    with pytest.raises(redis.TimeoutError):
        channel.begin("gone")
    second = channel.begin("second")
    held[0]()

    assert channel.append(second, 0, [], ended=False, lease=60) is False


# A cancel.


def stopped(relay: Relay, stream: TokenStream, publish: Publish) -> tuple[Future[Completion], Any]:
    """A publisher whose process stands still before its next append, and what lets it go on."""
    goes_on = threading.Event()
    append = _relay_channel.Channel.append

    def stand(self: Any, *arguments: Any, **options: Any) -> bool:
        if arguments[1] >= 2:
            goes_on.wait(SOON)
        return append(self, *arguments, **options)

    patch = pytest.MonkeyPatch()
    patch.setattr(_relay_channel.Channel, "append", stand)
    future = publish(stream, by=relay)
    with relay.follow(stream.job_id) as follower:
        take(follower, 2)

    def go_on() -> None:
        patch.undo()
        goes_on.set()

    return future, go_on


RESTS: dict[str, list[Step]] = {"silence": [Stall()], "end": answer("b"), "cut": [Cut("fin")]}


@pytest.mark.parametrize("rest", RESTS)
def test_worker_that_was_stopped_and_cancelled_meanwhile(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis, publish: Publish, rest: str
) -> None:
    """It wakes up beyond its lease: cancelled is cancelled, on both ends, whatever it had."""
    relay = Relay(client, lease=0.2)
    job_id = f"stopped before {rest}"
    engine.script(Text("a"), Wait(0.1), *RESTS[rest])
    future, go_on = stopped(relay, adapter.submit(a_task(job_id=job_id)), publish)
    channel = relay._channel(job_id)
    wait_until(lambda: channel.look().condition == "dead")
    relay.cancel(job_id)
    go_on()
    completion = future.result(SOON)
    (end,) = relay.follow(job_id)

    assert isinstance(end, End)
    assert end.finish_reason == completion.finish_reason == "cancelled"
    assert completion.text.startswith("a")
    engine.wait_idle(SOON)


def test_cancel_while_a_retry_is_waited_for(
    engine: FakeEngine, adapter: VllmHttpAdapter, client: redis.Redis
) -> None:
    """Nobody publishes then: followers see the end at once, and the retry is cancelled too."""
    relay = Relay(client, lease=60)
    engine.script(Text("old"), Cut("fin"))
    engine.script(*answer("new"))
    with contextlib.suppress(Exception):
        relay.publish(adapter.submit(a_task(job_id="countdown")), retry_in=lambda error: 600.0)
    with relay.follow("countdown") as follower, stopwatch() as watch:
        take(follower, 2)
        relay.cancel("countdown")
        rest = list(follower)
    completion = relay.publish(adapter.submit(a_task(job_id="countdown")))

    assert kinds(rest) == ["end"]
    assert watch.seconds < SOON
    assert completion.finish_reason == "cancelled"


def test_cancel_before_the_begin_of_a_short_answer(
    engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """However quick the engine was: the answer that nobody wants is not published."""
    relay.cancel("short")
    engine.script(*answer("Hello"))
    stream = adapter.submit(a_task(job_id="short"))
    engine.wait_idle(SOON)
    completion = relay.publish(stream)
    (end,) = relay.follow("short")

    assert isinstance(end, End)
    assert end.finish_reason == completion.finish_reason == "cancelled"


# What is gone.


def test_events_that_were_evicted(relay: Relay, client: redis.Redis) -> None:
    """A reader that was in time is not told that it was late; the publisher notices as well."""
    channel = relay._channel("evicted alive")
    generation = channel.begin()
    events = [Token("x", index).to_json() for index in range(3)]
    channel.append(generation, 0, events, ended=False, lease=60)
    with relay.follow("evicted alive") as follower:
        take(follower, 1)
        follower.close()
        client.delete("vllm-http:{evicted alive}:events")
        with pytest.raises(Exception, match="lost"):
            channel.append(generation, 3, [Token("x", 3).to_json()], ended=False, lease=60)
        with stopwatch() as watch:
            error = the_error(relay.follow("evicted alive", after=follower.last_id))

    assert "evicted" in error.message
    assert "late" not in error.message
    assert error.retriable is True
    assert watch.seconds < SOON
