"""What is tried again, how often, and how long the wait is."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from support import (
    ONCE,
    QUICKLY,
    SOON,
    a_task,
    answer,
    failure,
    posts,
    sent,
)

from vllm_http import (
    CapacityExceeded,
    End,
    EngineUnavailable,
    InvalidRequest,
    RetryPolicy,
    Started,
    StreamingError,
    Timeout,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    ErrorEvent,
    Event,
    FakeEngine,
    Finish,
    Headers,
    Raw,
    Role,
    Stage,
    Stall,
    Status,
    Step,
    Text,
    WireBytes,
)


THREE = RetryPolicy(attempts=3, base=0.001, cap=0.001)
CUT_HEAD = WireBytes(b"HTTP/1.1 200 OK\r\nserver: uvic")


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine whose /version leaves no connection behind that a task could take over."""
    with FakeEngine() as engine:
        engine.override("/version", 200, {"version": "0.32.0"}, {"connection": "close"})
        yield engine


@dataclass
class HungUp:
    """A step that notes whether the engine's first request is hung up on, and waits for it."""

    engine: FakeEngine
    seen: list[bool] = field(default_factory=list)

    def play(self, stage: Stage) -> None:
        self.seen.append(posts(self.engine)[0].hung_up.wait(2))


def refusal(code: int) -> Status:
    """A refusal as vLLM words it."""
    return Status(code, {"error": {"message": "Not now", "type": "Error", "code": code}})


@pytest.mark.parametrize(
    ("steps", "kind", "requests", "retriable"),
    [
        pytest.param([refusal(429)], CapacityExceeded, 3, True, id="429"),
        pytest.param([refusal(502)], EngineUnavailable, 3, True, id="502"),
        pytest.param([refusal(503)], EngineUnavailable, 3, True, id="503"),
        pytest.param([refusal(504)], EngineUnavailable, 3, True, id="504"),
        pytest.param([refusal(500)], EngineUnavailable, 2, True, id="500"),
        pytest.param([refusal(501)], EngineUnavailable, 1, False, id="501"),
        pytest.param([refusal(505)], EngineUnavailable, 1, False, id="505"),
        pytest.param([refusal(400)], InvalidRequest, 1, False, id="400"),
        pytest.param([refusal(401)], InvalidRequest, 1, False, id="401"),
        pytest.param([refusal(403)], InvalidRequest, 1, False, id="403"),
        pytest.param([refusal(404)], InvalidRequest, 1, False, id="404"),
        pytest.param([refusal(408)], Timeout, 1, True, id="408"),
        pytest.param([refusal(409)], CapacityExceeded, 1, True, id="409"),
        pytest.param([refusal(422)], InvalidRequest, 1, False, id="422"),
        pytest.param([refusal(425)], CapacityExceeded, 1, True, id="425"),
        pytest.param([Cut("rst")], EngineUnavailable, 3, True, id="reset"),
        pytest.param([Cut("fin")], EngineUnavailable, 3, True, id="hang-up"),
    ],
)
def test_refused_by_status(
    engine: FakeEngine,
    steps: list[Step],
    kind: type[WorkerError],
    requests: int,
    retriable: bool,
) -> None:
    """Each refusal has its class, its number of tries, and its word on hope."""
    for _ in range(3):
        engine.script(*steps)

    with VllmHttpAdapter(engine.url, retry=THREE) as adapter:
        error, seen = failure(adapter.submit(a_task()))

    status = steps[0].code if isinstance(steps[0], Status) else None
    assert seen == ["error"]
    assert type(error) is kind
    assert (error.status, error.retriable, sent(engine)) == (status, retriable, requests)


@pytest.mark.parametrize(
    ("steps", "kind", "requests"),
    [
        pytest.param([ErrorEvent("no", 400), Done()], InvalidRequest, 1, id="400"),
        pytest.param([ErrorEvent("no", 404), Done()], InvalidRequest, 1, id="404"),
        pytest.param([ErrorEvent("no", 429), Done()], CapacityExceeded, 3, id="429"),
        pytest.param([ErrorEvent("no", 503), Done()], EngineUnavailable, 3, id="503"),
        pytest.param([ErrorEvent("no", 500), Done()], EngineUnavailable, 2, id="500"),
        pytest.param([ErrorEvent("no", 501), Done()], EngineUnavailable, 1, id="501"),
        pytest.param([Role(), ErrorEvent("no", 503)], EngineUnavailable, 3, id="role, 503"),
        pytest.param([], StreamingError, 3, id="empty"),
        pytest.param([Comment()], StreamingError, 3, id="comment only"),
        pytest.param([Done()], StreamingError, 3, id="[DONE] only"),
        pytest.param([CUT_HEAD, Cut("fin")], StreamingError, 3, id="cut head"),
        pytest.param([Headers(), Cut("rst")], StreamingError, 3, id="reset"),
        pytest.param([Headers(), Cut("fin")], StreamingError, 3, id="hang-up"),
        pytest.param([Finish("abort"), Done()], StreamingError, 3, id="abort"),
        pytest.param([Event("nonsense")], StreamingError, 1, id="garbage"),
        pytest.param([Headers(), Raw(b"<html>\n\n")], StreamingError, 1, id="HTML as SSE"),
        pytest.param([Status(200, {"choices": []})], StreamingError, 1, id="JSON"),
        pytest.param([Event("x" * 9 * 2**20)], StreamingError, 1, id="too large"),
        pytest.param([Status(200, b"<html>")], StreamingError, 1, id="HTML"),
    ],
)
def test_refused_inside_the_stream(
    engine: FakeEngine, steps: list[Step], kind: type[WorkerError], requests: int
) -> None:
    """What fails inside a 200 before any content is tried again as its status would be.

    Garbage, which says that there is no hope, is sent once.
    """
    for _ in range(3):
        engine.script(*steps)

    with VllmHttpAdapter(engine.url, retry=THREE) as adapter:
        error, _ = failure(adapter.submit(a_task()))

    assert type(error) is kind
    assert sent(engine) == requests
    assert error.retriable or requests == 1


def test_500_is_tried_again_once(engine: FakeEngine) -> None:
    """Also when another failure comes between."""
    for code in (500, 503, 500):
        engine.script(refusal(code))

    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        error, _ = failure(adapter.submit(a_task()))

    assert (error.status, sent(engine)) == (500, 3)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([ErrorEvent("no", 503), Done()], id="503"),
        pytest.param([ErrorEvent("no", 500), Done()], id="500"),
        pytest.param([Cut("rst")], id="reset"),
        pytest.param([Finish("abort"), Done()], id="abort"),
        pytest.param([Event("nonsense")], id="garbage"),
    ],
)
def test_never_after_the_first_content(engine: FakeEngine, steps: list[Step]) -> None:
    """Once content has come, the task fails rather than repeat itself."""
    engine.script(Text("a"), *steps)

    with VllmHttpAdapter(engine.url, retry=THREE) as adapter:
        _, seen = failure(adapter.submit(a_task()))

    assert seen == ["started", "token", "error"]
    assert sent(engine) == 1


def test_token_ids_forbid_a_retry(engine: FakeEngine) -> None:
    """Token ids are content though no text came."""
    engine.script(Event({"choices": [{"index": 0, "text": "", "token_ids": [7]}]}), Cut("rst"))

    with VllmHttpAdapter(engine.url, retry=THREE) as adapter:
        failure(adapter.submit(a_task()))

    assert sent(engine) == 1


def test_success_after_failures(engine: FakeEngine) -> None:
    """The stream shows nothing of earlier attempts but their number in the metrics."""
    engine.script(Status(503, headers={"connection": "close"}))
    engine.script(Cut("rst"))
    engine.script(*answer("a"))

    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        started, _, end = adapter.submit(a_task())

    third = posts(engine, 3)[2]
    assert isinstance(started, Started)
    assert isinstance(end, End)
    assert end.metrics.attempts == 3
    assert started.request_id == end.request_id == third.header("X-Request-Id")


def test_started_once_whatever_the_retries(engine: FakeEngine) -> None:
    """Started names the first attempt that was accepted, End the one that served."""
    engine.script(Headers(), ErrorEvent("no", 503), Done())
    engine.script(*answer("a"))

    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        started, token, end = adapter.submit(a_task())

    first, second = posts(engine, 2)
    assert isinstance(started, Started)
    assert isinstance(end, End)
    assert token.type == "token"
    assert started.request_id == first.header("X-Request-Id")
    assert end.request_id == second.header("X-Request-Id")


def test_each_attempt_has_its_own_request_id(engine: FakeEngine) -> None:
    """The X-Request-Id is new for each attempt, and the correlation stays."""
    for _ in range(3):
        engine.script(refusal(503))

    with VllmHttpAdapter(engine.url, retry=THREE) as adapter:
        failure(adapter.submit(a_task(correlation_id="c-1")))

    requests = posts(engine, 3)
    assert len({request.header("X-Request-Id") for request in requests}) == 3
    assert {request.header("X-Correlation-Id") for request in requests} == {"c-1"}


def test_old_attempt_is_hung_up_on_before_the_next(engine: FakeEngine) -> None:
    """An engine never works on two copies of a task."""
    check = HungUp(engine)
    engine.script(Headers(), ErrorEvent("no", 503), Stall())
    engine.script(check, *answer("a"))

    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).text == "a"

    assert check.seen == [True]


def test_one_attempt_is_no_retry(engine: FakeEngine) -> None:
    """attempts=1 fails with what the first attempt met."""
    engine.script(refusal(503))

    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        error, _ = failure(adapter.submit(a_task()))

    assert error.status == 503
    assert sent(engine) == 1


def test_refused_connection(engine: FakeEngine) -> None:
    """Nobody at the port is EngineUnavailable, after all attempts."""
    url = engine.url
    engine.close()

    with VllmHttpAdapter(url, retry=THREE) as adapter:
        error, seen = failure(adapter.submit(a_task()))

    assert seen == ["error"]
    assert isinstance(error, EngineUnavailable)
    assert (error.status, error.retriable) == (None, True)


def test_engine_that_comes_back(engine: FakeEngine) -> None:
    """A task that finds the port closed runs once the engine is up."""
    url = engine.url
    engine.close()
    retry = RetryPolicy(attempts=1000, base=0.05, cap=0.05)
    with VllmHttpAdapter(url, retry=retry) as adapter:
        stream = adapter.submit(a_task())
        with pytest.raises(queue.Empty):
            stream.get(timeout=0.2)
        engine.start()
        completion = stream.result(timeout=SOON)

    assert completion.metrics is not None
    assert completion.metrics.attempts > 1
