"""What `StreamingTask` asks of the adapter and of Celery, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore, ImproperlyConfigured, Retry
from celery.signals import task_revoked, worker_init
from relay.redis_server import free_port
from support import a_task, answer, kinds

from vllm_http import (
    CapacityExceeded,
    Completion,
    EngineUnavailable,
    InvalidRequest,
    Metrics,
    StreamingError,
    TaskRequest,
    Timeout,
    TokenStream,
    Unknown,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.integrations.celery import StreamingTask
from vllm_http.integrations.relay import Relay, Superseded
from vllm_http.testing import Cut, FakeEngine, Stall, Status, Text


class Recorder:
    """In an adapter's place: notes what is submitted."""

    def __init__(self) -> None:
        self.tasks: list[TaskRequest] = []

    def submit(self, task: TaskRequest) -> None:
        self.tasks.append(task)


class Tried(StreamingTask):
    """Notes when Celery is asked to try again, and does not."""

    abstract = True
    countdowns: list[float]

    def retry(self, *, exc: Exception, countdown: float) -> Retry:
        self.countdowns.append(countdown)
        return Retry(str(exc), exc, countdown)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application whose tasks run in this process."""
    app = Celery("tests", broker="memory://", set_as_current=False)
    yield app
    app.close()


def declare(app: Celery, base: type = StreamingTask, **options: Any) -> Any:
    """A task that submits what it is given, and publishes if there is a relay."""

    def generate(self: StreamingTask, **fields: Any) -> Any:
        stream = self.stream(a_task(**fields))
        if self.relay is None or not isinstance(stream, TokenStream):
            return stream and stream.result().to_dict()
        return self.publish(stream).to_dict()

    return app.task(generate, name="generate", base=base, bind=True, shared=False, **options)


# What is submitted.


def test_job_id_is_celerys(app: Celery) -> None:
    """Whoever sent the task knows which job to follow and to cancel."""
    recorder = Recorder()
    declare(app, adapter=recorder).apply(kwargs={"job_id": "mine"}, task_id="celerys").get()

    assert [task.job_id for task in recorder.tasks] == ["celerys"]


def test_called_as_a_function(app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Without Celery it is a function like any other: no retry, no limit, no id of its own."""
    engine.script(*answer("Hello"))
    engine.script(Text("Hello"), Cut("fin"))
    task = declare(app, adapter=adapter)

    assert (task(job_id="mine")["job_id"], task.max_retries) == ("mine", 3)
    with pytest.raises(StreamingError):
        task()


@pytest.mark.parametrize(
    ("hard", "soft", "own", "expected"),
    [
        (None, None, None, None),
        (None, None, 5000, 5000),
        (None, 100, None, 98_000),
        (200, 100, None, 98_000),
        (100, None, None, 98_000),
        (100, 200, None, 98_000),
        (None, 10, None, 9_000),
        (None, 100, 5000, 5000),
        (None, 10, 60_000, 9_000),
        (None, 0.001, None, 1),
    ],
)
def test_deadline(
    app: Celery, hard: float | None, soft: float | None, own: int | None, expected: int | None
) -> None:
    """It is a tenth or 2 s before the first limit, or the task's own if that is sooner."""
    recorder = Recorder()
    task = declare(app, adapter=recorder, time_limit=hard, soft_time_limit=soft)
    task.apply(kwargs={"deadline_ms": own}).get()
    (submitted,) = recorder.tasks

    if expected is None or own == expected:
        assert submitted.deadline_ms == expected
    else:
        assert submitted.deadline_ms == pytest.approx(expected - 500, abs=500)


def test_application_has_limits(app: Celery) -> None:
    """The setting of all tasks counts as well."""
    app.conf.task_soft_time_limit = 100
    recorder = Recorder()
    declare(app, adapter=recorder).apply().get()
    (submitted,) = recorder.tasks

    assert submitted.deadline_ms == pytest.approx(98_000, abs=1000)


@pytest.mark.parametrize("options", [{}, {"adapter": Recorder()}], ids=["adapter", "relay"])
def test_what_is_missing_is_named(app: Celery, options: dict[str, Any]) -> None:
    """A forgotten option is not found out by an AttributeError."""
    task = declare(app, **options)
    missing = "relay" if options else "adapter"
    with pytest.raises(ImproperlyConfigured, match=missing):
        task.publish(None) if options else task()


def test_invalid_task_fails(app: Celery, adapter: VllmHttpAdapter) -> None:
    """No retry makes it valid."""
    result = declare(app, adapter=adapter).apply(kwargs={"max_tokens": 0})

    assert isinstance(result.result, InvalidRequest)


# Twice.


def test_task_that_this_process_runs_already(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """The first one's result counts; the second is dropped without one."""
    engine.script(Stall())
    with adapter.submit(a_task(job_id="live")):
        result = declare(app, adapter=adapter).apply(task_id="live")

    assert result.state == "IGNORED"
    assert isinstance(result.result, Ignore)


def test_task_that_another_process_has_taken_over(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's result counts."""

    def taken_over(stream: TokenStream, **options: object) -> None:
        with stream:
            raise Superseded("another worker")

    relay = SimpleNamespace(publish=taken_over)
    result = declare(app, adapter=adapter, relay=relay).apply()

    assert result.state == "IGNORED"


# Retries.


def test_retry_waits_as_long_as_the_engine_asks(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """And a little longer, so that not all come back at once."""
    engine.script(Status(429, {"error": "busy"}, {"retry-after": "300"}))
    task = declare(app, Tried, adapter=adapter, countdowns=[])
    task.apply()
    (countdown,) = task.countdowns

    assert 300.5 <= countdown <= 301


@pytest.mark.parametrize("asked", ["601", "1000000000", "9" * 300])
def test_a_wait_beyond_the_cap_is_the_failure(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter, asked: str
) -> None:
    """Celery would keep the job for 31 years, or lose it."""
    engine.script(Status(429, {"error": "busy"}, {"retry-after": asked}))
    task = declare(app, Tried, adapter=adapter, countdowns=[])

    result = task.apply()

    assert task.countdowns == []
    assert isinstance(result.result, CapacityExceeded)
    assert result.result.retry_after_ms is None or result.result.retry_after_ms > 600_000


def test_the_cap_on_a_wait_is_an_option(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """As the others."""
    engine.script(Status(429, {"error": "busy"}, {"retry-after": "7200"}))
    task = declare(app, Tried, adapter=adapter, max_retry_after=7200.0, countdowns=[])

    task.apply()

    assert [7200.5 <= countdown <= 7201 for countdown in task.countdowns] == [True]


@pytest.mark.parametrize(
    ("retries", "most"), [(0, 1), (1, 2), (2, 4), (30, 60), (1024, 60), (10**6, 60)]
)
def test_retry_backs_off(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter, retries: int, most: float
) -> None:
    """The bound doubles, up to a cap."""
    task = declare(app, Tried, adapter=adapter, max_retries=None, countdowns=[])
    for _ in range(20):
        engine.script(Text("Hello"), Cut("fin"))
        task.apply(retries=retries)

    assert len(task.countdowns) == 20
    assert most / 2 <= min(task.countdowns) < max(task.countdowns) <= most


def test_followers_and_celery_are_told_the_same_wait(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """The relay keeps its followers for as long as the task will be away."""
    told: list[float | None] = []

    def publish(stream: TokenStream, retry_in: Any) -> None:
        try:
            stream.result()
        except WorkerError as error:
            told.append(retry_in(error))
            raise

    engine.script(Text("Hello"), Cut("fin"))
    task = declare(
        app, Tried, adapter=adapter, relay=SimpleNamespace(publish=publish), countdowns=[]
    )
    task.apply()

    assert told == task.countdowns


@pytest.mark.parametrize("retries", [3, 4])
def test_retries_are_celerys(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter, retries: int
) -> None:
    """`max_retries` is obeyed; then the error is the task's."""
    engine.script(Text("Hello"), Cut("fin"))
    task = declare(app, Tried, adapter=adapter, countdowns=[])
    result = task.apply(retries=retries)

    assert task.countdowns == []
    assert isinstance(result.result, StreamingError)


def test_full_adapter_is_tried_again(app: Celery, engine: FakeEngine) -> None:
    """A limit of our own is no reason to fail a task that can wait in the queue."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter:
        task = declare(app, Tried, adapter=adapter, countdowns=[])
        with adapter.submit(a_task()):
            result = task.apply()

    assert isinstance(result.result.exc, CapacityExceeded)
    assert len(task.countdowns) == 1


def test_eager_task(
    app: Celery, engine: FakeEngine, adapter: VllmHttpAdapter, relay: Relay
) -> None:
    """In the caller's own process: the job is published all the same, and read after its end."""
    app.conf.task_always_eager = True
    engine.script(*answer("Hello"))
    result = declare(app, adapter=adapter, relay=relay).delay()

    assert result.get()["text"] == "Hello"
    assert kinds(relay.follow(result.id)) == ["started", "token", "end"]


# Result backends.


def failures() -> list[WorkerError]:
    """One of each kind, with fields that are not its class's own."""
    partial = Completion("a job", "Hello", metrics=Metrics(tokens_generated=1))
    details: dict[str, Any] = {"code": "ODD", "job_id": "a job", "retry_after_ms": 1500}
    classes = (StreamingError, EngineUnavailable, CapacityExceeded, InvalidRequest, Unknown)
    return [
        *(cls("why", status=502, retriable=False, partial=partial, **details) for cls in classes),
        Timeout("why", phase="stall", retriable=False, **details),
    ]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("failure", failures(), ids=lambda failure: type(failure).__name__)
def test_error_goes_through_a_result_backend_whole(
    app: Celery, failure: WorkerError, serializer: str
) -> None:
    """Who asks for the result gets the error that the task had, and not its message alone."""
    pytest.importorskip({"msgpack": "msgpack", "yaml": "yaml"}.get(serializer, "json"))
    app.conf.update(result_backend="cache+memory://", result_serializer=serializer)
    app.conf.update(accept_content=[serializer], result_accept_content=[serializer])

    def fail(self: StreamingTask) -> None:
        raise failure

    options: dict[str, Any] = {"bind": True, "shared": False, "max_retries": 0}
    task = app.task(fail, name="fail", base=StreamingTask, **options)
    app.conf.task_store_eager_result = True
    id = task.apply().id
    error = app.AsyncResult(id).result

    assert type(error) is type(failure)
    assert error.to_dict() == failure.to_dict()
    assert str(error) == "why"


# At a worker's start.


@pytest.mark.parametrize(
    ("broker", "options", "cap", "told"),
    [
        ("redis://", {}, 60.0, False),
        ("redis://", {}, 7200.0, True),
        ("redis://", {"visibility_timeout": 86400}, 7200.0, False),
        ("redis://", {"visibility_timeout": 30}, 60.0, True),
        ("sentinel://", {}, 7200.0, True),
        ("amqp://", {}, 7200.0, False),
        ("memory://", {}, 7200.0, False),
    ],
)
def test_cap_beyond_the_visibility_timeout_is_told(
    caplog: pytest.LogCaptureFixture, broker: str, options: dict[str, Any], cap: float, told: bool
) -> None:
    """A task that waits longer than the broker does is delivered twice: a warning names both."""
    app = Celery("tests", broker=broker, set_as_current=False)
    app.conf.broker_transport_options = options
    declare(app, adapter=Recorder(), retry_cap=cap)
    with caplog.at_level(logging.WARNING, "vllm_http"):
        worker_init.send(sender=type("Worker", (), {"app": app})())
    app.close()

    ours = [record.message for record in caplog.records if record.name == "vllm_http"]
    assert ["visibility_timeout" in message for message in ours] == [True] * told


# Revoked.


def test_followers_of_a_revoked_task_see_the_end(app: Celery, relay: Relay) -> None:
    """Celery's master process tells them, even where no worker had begun it."""
    task = declare(app, adapter=Recorder(), relay=relay)
    task_revoked.send(sender=task, request=SimpleNamespace(id="revoked"))

    assert kinds(relay.follow("revoked")) == ["end"]


def test_revoked_task_without_a_relay(app: Celery) -> None:
    """Other tasks are none of our business."""

    def other() -> None:
        """A task of another base."""

    for sender in (declare(app), app.task(other, name="other")):
        answers = task_revoked.send(sender=sender, request=SimpleNamespace(id="other"))

        assert [answer for _, answer in answers] == [None]


def test_revoked_task_while_redis_is_away(
    app: Celery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master process goes on, and says so."""
    monkeypatch.setattr("vllm_http.integrations.relay._CANCEL_PATIENCE", 0.1)
    relay = Relay(f"redis://127.0.0.1:{free_port()}")
    task = declare(app, relay=relay)
    with caplog.at_level(logging.WARNING, "vllm_http"):
        task_revoked.send(sender=task, request=SimpleNamespace(id="lost"))

    assert [record.name for record in caplog.records] == ["vllm_http"]
