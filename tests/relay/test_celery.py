"""Tasks that stream, through real workers of every pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
import redis
from celery import Celery, Signature, chord, group
from relay.redis_server import RedisServer
from relay.workers import PATIENCE, Caller, Worker, follow, take, texts
from support import SOON, a_task, answer, kinds, posts, the_error

from vllm_http import Completion, End, InvalidRequest, StreamingError, Timeout
from vllm_http.integrations.relay import Relay
from vllm_http.testing import Cut, FakeEngine, Stall, Status, Text


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[FakeEngine]:
    """The engine of the shared workers; connections of theirs are gone when a test is."""
    with FakeEngine(keep_alive=0.05) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    """The shared engine, of which no request is left running."""
    shared_engine.wait_idle(SOON)
    return shared_engine


@pytest.fixture(scope="module")
def places(shared_engine: FakeEngine, redis_server: RedisServer) -> dict[str, str]:
    """Where everything is, for a worker."""
    return {"BROKER": redis_server.url, "REDIS": redis_server.url, "ENGINE": shared_engine.url}


@pytest.fixture(scope="module")
def prefork(tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]) -> Iterator[Worker]:
    """Two workers with processes; one of them is returned."""
    folder = tmp_path_factory.mktemp("prefork")
    with (
        Worker(folder, "prefork", 2, **places) as worker,
        Worker(folder, "prefork", 2, **places) as other,
    ):
        other.wait_ready()
        yield worker.wait_ready()


@pytest.fixture
def caller(redis_server: RedisServer, client: redis.Redis) -> Iterator[Caller]:
    """Who sends tasks."""
    with Caller(redis_server.url, client) as caller:
        yield caller


# Every pool.


@pytest.fixture(scope="module", params=["prefork", "threads", "solo", "gevent"])
def worker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]
) -> Iterator[Worker]:
    """A worker of each pool; that with processes is shared with the other tests."""
    if request.param == "prefork":
        yield request.getfixturevalue("prefork")
        return
    if request.param == "gevent" and not os.environ.get("CI"):
        pytest.importorskip("gevent")
    with Worker(tmp_path_factory.mktemp(request.param), request.param, 8, **places) as worker:
        yield worker.wait_ready()


def test_events_and_result(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """The follower gets the events, and Celery keeps the completion, as JSON."""
    engine.script(*answer("Hello", " world"))
    id = caller.send()
    events = list(follow(relay, id))
    result = caller.result(id)

    assert kinds(events) == ["started", "token", "token", "end"]
    completion = Completion.from_dict(result["result"])
    assert (completion.job_id, completion.text) == (id, "Hello world")
    assert posts(engine)[-1].header("X-Correlation-Id") == id


def test_many_at_once(worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay) -> None:
    """Tasks beside each other keep their events apart."""
    ids = [caller.send(task={"seed": seed}) for seed in range(20)]
    followed = [texts(list(follow(relay, id))) for id in ids]
    results = [caller.result(id)["result"]["text"] for id in ids]

    assert followed == results
    assert len(set(results)) == 20


def test_cancel(worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay) -> None:
    """`Relay.cancel` works with every pool, and the task succeeds with what it is."""
    engine.script(Text("Hello"), Stall())
    id = caller.send()
    with follow(relay, id) as follower:
        take(follower, 2)
        relay.cancel(id)
        (end,) = follower

    assert isinstance(end, End)
    assert end.finish_reason == "cancelled"
    assert posts(engine)[-1].hung_up.wait(SOON)
    assert caller.result(id)["result"]["finish_reason"] == "cancelled"


def test_deadline_comes_before_the_time_limit(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """The stream ends by itself, whether or not the pool knows soft limits."""
    engine.script(Text("Hello"), Stall())
    id = caller.send(soft_time_limit=2)
    error = the_error(follow(relay, id))
    result = caller.result(id)

    assert isinstance(error, Timeout)
    assert error.phase == "deadline"
    assert (result["status"], result["result"]["exc_type"]) == ("FAILURE", "Timeout")
    assert posts(engine)[-1].hung_up.wait(SOON)


def test_deadline_of_the_task_if_it_is_sooner(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """A time limit makes nothing last longer."""
    engine.script(Text("Hello"), Stall())
    id = caller.send(time_limit=600, task={"deadline_ms": 300})

    assert isinstance(the_error(follow(relay, id)), Timeout)


def test_retry(worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay) -> None:
    """A stream that is cut is tried again; followers see it begin anew."""
    engine.script(Text("old"), Cut("fin"))
    engine.script(*answer("new"))
    id = caller.send()
    events = list(follow(relay, id))

    assert kinds(events) == ["started", "token", "started", "token", "end"]
    assert caller.result(id)["result"]["text"] == "new"


def test_no_retry_without_hope(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """What the engine refuses for good fails at once."""
    engine.script(Status(400, {"error": {"message": "no", "code": 400}}))
    id = caller.send()

    assert the_error(follow(relay, id)).retriable is False
    assert caller.result(id)["result"]["exc_type"] == "InvalidRequest"


@pytest.mark.parametrize("worker", ["prefork", "gevent"], indirect=True)
def test_revoke_in_mid_stream(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """Celery's own way to end a task frees the engine, and followers see the end and its cost."""
    engine.script(Text("Hello"), Text(" world"), Stall())
    id = caller.send()
    with follow(relay, id) as follower:
        take(follower, 3)
        caller.revoke(id)
        (end,) = follower

    assert isinstance(end, End)
    assert (end.finish_reason, end.metrics.tokens_generated) == ("cancelled", 2)
    assert posts(engine)[-1].hung_up.wait(SOON)


# Celery's own ways to put tasks together, and to send them.


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[Celery]:
    """A caller with a result backend."""
    app = Celery("caller", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    yield app
    app.backend.result_consumer.stop()
    app.backend.client.connection_pool.disconnect()  # that of its subscription, too
    app.close()
    kombu.pools.reset()


def generate(app: Celery, **options: Any) -> Signature:
    """A task that streams, to be sent."""
    return app.signature("generate", args=[a_task().to_dict()], **options)


def test_chain(worker: Worker, app: Celery, engine: FakeEngine) -> None:
    """The next task gets the completion, as JSON."""
    engine.script(*answer("Hello"))
    result = (generate(app) | app.signature("texts")).apply_async()

    assert result.get(timeout=PATIENCE) == "Hello"


def test_group(worker: Worker, app: Celery, engine: FakeEngine, relay: Relay) -> None:
    """Each task of it is a job of its own, which may be followed."""
    for word in "ab":
        engine.script(*answer(word))
    result = group([generate(app), generate(app)], app=app).apply_async()
    followed = [texts(list(follow(relay, each.id))) for each in result.results]

    assert [each["text"] for each in result.get(timeout=PATIENCE)] == followed
    assert sorted(followed) == ["a", "b"]


def test_chord(worker: Worker, app: Celery, engine: FakeEngine) -> None:
    """Its body gets all completions."""
    for word in "ab":
        engine.script(*answer(word))
    result = chord([generate(app), generate(app)], app=app)(app.signature("texts"))

    assert result.get(timeout=PATIENCE) == ["a", "b"]


def test_failure_that_a_caller_gets(worker: Worker, app: Celery, engine: FakeEngine) -> None:
    """It is the engine's error with all its fields, through the JSON of the backend."""
    engine.script(Status(404, {"error": {"message": "no such model", "code": 404}}))
    result = generate(app).apply_async()
    with pytest.raises(InvalidRequest) as raised:
        result.get(timeout=PATIENCE)

    assert (raised.value.status, raised.value.retriable) == (404, False)
    assert raised.value.job_id == result.id


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
def test_serializer_of_the_message(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay, serializer: str
) -> None:
    """A task's dict is plain, whatever writes it down."""
    pytest.importorskip({"msgpack": "msgpack", "yaml": "yaml"}.get(serializer, "json"))
    engine.script(*answer("Hello"))

    assert texts(list(follow(relay, caller.send(serializer=serializer)))) == "Hello"


def test_result_that_nobody_keeps(
    worker: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """Followers need none."""
    engine.script(*answer("Hello"))
    id = caller.send(ignore_result=True)

    assert texts(list(follow(relay, id))) == "Hello"
    assert caller.state(id) is None


# With processes.


def test_hard_limit_kills(
    prefork: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """Where nobody heeds it: the engine is freed with the process, followers are told in time."""
    engine.script(Text("Hello"), Stall())
    id = caller.send("careless", time_limit=1)
    events = list(relay.follow(id, patience=5))

    assert kinds(events) == ["started", "token", "error"]
    assert posts(engine)[-1].hung_up.wait(SOON)
    assert caller.result(id)["result"]["exc_type"] == "TimeLimitExceeded"


def test_child_that_serves_one_task(
    tmp_path: Path, places: dict[str, str], caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """The next process makes connections of its own."""
    one = {**places, "QUEUE": "one", "TASKS_PER_CHILD": "1"}
    with Worker(tmp_path, "prefork", 1, **one) as worker:
        worker.wait_ready()
        for word in "abc":
            engine.script(*answer(word))
        ids = [caller.send(queue="one") for _ in "abc"]

        assert sorted(texts(list(follow(relay, id))) for id in ids) == ["a", "b", "c"]


def test_retry_without_a_relay(prefork: Worker, caller: Caller, engine: FakeEngine) -> None:
    """The base class alone retries; what the engine asks for is waited."""
    for _ in range(2):
        engine.script(Text("old"), Cut("fin"))
    engine.script(*answer("new"))

    assert caller.result(caller.send("collect"))["result"]["text"] == "new"


def test_retries_are_bounded(
    prefork: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """After Celery's max_retries the failure is the result, and followers hear of it."""
    for _ in range(4):
        engine.script(Text("old"), Cut("fin"))
    id = caller.send()
    events = list(follow(relay, id))

    assert kinds(events) == ["started", "token"] * 4 + ["error"]
    assert isinstance(the_error(events), StreamingError)
    assert caller.result(id)["status"] == "FAILURE"


def test_two_hundred_tasks(
    prefork: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """Through two workers: every task has its own answer, once."""
    before = len(posts(engine, 0))
    ids = [caller.send(task={"seed": seed, "max_tokens": 20}) for seed in range(200)]
    followed = [texts(list(follow(relay, id))) for id in ids]

    assert followed == [caller.result(id)["result"]["text"] for id in ids]
    assert len(posts(engine)) - before == 200


def test_soft_limit_that_nobody_heeds(
    prefork: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """Where it does strike in mid-stream, the engine is freed and followers are told."""
    engine.script(Text("Hello"), Stall())
    id = caller.send("careless", soft_time_limit=1)
    events = list(follow(relay, id))

    assert kinds(events) == ["started", "token", "error"]
    assert "SoftTimeLimitExceeded" in the_error(events).message
    assert posts(engine)[-1].hung_up.wait(SOON)


def test_same_task_delivered_twice(
    prefork: Worker, caller: Caller, engine: FakeEngine, relay: Relay
) -> None:
    """The later one is heard; the earlier one stops, and stores no result."""
    engine.script(Text("old"), Stall())
    engine.script(*answer("new"))
    id = caller.send()
    with follow(relay, id) as follower:
        events = take(follower, 2)
        first = posts(engine)[-1]
        caller.send(id=id)
        events += follower

    assert kinds(events) == ["started", "token", "started", "token", "end"]
    assert first.hung_up.wait(SOON)
    assert caller.result(id)["result"]["text"] == "new"
