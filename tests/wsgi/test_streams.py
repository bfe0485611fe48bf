"""Bodies of real streams: the status before them, and the engine after them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from http import HTTPStatus

import pytest
import support
from support import ONCE, SOON, a_task, posts

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    Timeout,
    TokenStream,
    Unknown,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.integrations.wsgi import Body, plain_text, sse, status_of
from vllm_http.testing import Cut, FakeEngine, Stall, Status, Text


engine, adapter = support.engine, support.adapter


# The engine after them.


def test_close_frees_the_engine(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Closing is cancelling."""
    engine.script(Text("x"), Stall())
    body = plain_text(adapter.submit(a_task()))
    next(body)
    body.close()

    assert posts(engine)[0].hung_up.wait(SOON)


def test_dropping_frees_the_engine(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A body that nobody iterates or closes takes its stream with it."""
    engine.script(Stall())
    body = sse(adapter.submit(a_task()))
    (request,) = posts(engine)
    del body
    gc.collect()

    assert request.hung_up.wait(SOON)


def test_close_from_another_thread(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """It ends a body that waits."""
    engine.script(Text("x"), Stall())
    body = plain_text(adapter.submit(a_task()))
    received = [next(body)]
    reader = threading.Thread(target=lambda: received.extend(body))
    reader.start()
    body.close()
    reader.join(SOON)

    assert received == [b"x"]
    assert not reader.is_alive()


# The status before them.


@pytest.mark.parametrize("form", [sse, plain_text])
def test_begin_raises_a_refusal(
    engine: FakeEngine, adapter: VllmHttpAdapter, form: Callable[[TokenStream], Body]
) -> None:
    """Before anything is sent, and the body is over."""
    engine.script(Status(404, {"error": {"message": "no such model", "code": 404}}))
    body = form(adapter.submit(a_task()))

    with pytest.raises(InvalidRequest, match="no such model") as caught:
        body.begin(timeout=SOON)
    assert status_of(caught.value) == (HTTPStatus.NOT_FOUND, [])
    assert list(body) == []


def test_begin_loses_nothing(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What it waited for comes first in the body."""
    engine.script(Text("x"), Stall())
    body = sse(adapter.submit(a_task()))
    body.begin(timeout=SOON)

    assert next(body).startswith(b"event: started\n")
    body.close()


def test_begin_does_not_wait_for_long(engine: FakeEngine) -> None:
    """A failure that comes later is a frame."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        body = sse(adapter.submit(a_task()))
        body.begin(timeout=0.01)
        posts(engine)
        engine.close()

        assert b"event: error\n" in b"".join(body)


def test_failure_before_the_text_is_raised_at_once(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """In plain text a server can still answer 500, since nothing has gone out."""
    engine.script(Text(""), Cut("rst"))
    engine.script(Status(501, {"error": {"message": "no", "code": 501}}))

    with pytest.raises(WorkerError):
        next(plain_text(adapter.submit(a_task())))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("bad"), 400),
        (InvalidRequest("no model", code="UPSTREAM_NOT_FOUND"), 404),
        (InvalidRequest("wrong key", code="UPSTREAM_AUTH"), 502),
        (CapacityExceeded("full"), 429),
        (EngineUnavailable("away"), 503),
        (Timeout("late", phase="queued"), 504),
        (Unknown("a bug"), 500),
    ],
)
def test_status_of(error: WorkerError, status: int) -> None:
    """The status says whose fault it is, from where the client stands."""
    assert status_of(error) == (HTTPStatus(status), [])


def test_status_of_retry_after() -> None:
    """In whole seconds, and not too early."""
    error = CapacityExceeded("full", retry_after_ms=1001)

    assert status_of(error) == (HTTPStatus.TOO_MANY_REQUESTS, [("Retry-After", "2")])
