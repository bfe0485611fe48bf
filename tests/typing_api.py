"""Typical user code, for mypy --strict alone: it is checked and never executed."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from registry_support import Recording

from vllm_http import (
    AdapterRegistry,
    Choice,
    Completion,
    End,
    EngineMetrics,
    EngineProps,
    EngineUnavailable,
    Error,
    HealthState,
    HealthStatus,
    InvalidRequest,
    Logprob,
    Metrics,
    Model,
    RetryPolicy,
    Started,
    TaskRequest,
    Timeout,
    Timeouts,
    Token,
    TokenEvent,
    TokenStream,
    VllmHttpAdapter,
    WorkerAdapter,
    WorkerError,
    event_from_dict,
    event_from_json,
)


if TYPE_CHECKING:
    from typing_extensions import assert_never, assert_type


def construct() -> VllmHttpAdapter:
    """Every argument, by name."""
    return VllmHttpAdapter(
        "http://localhost:8000",
        api_key=os.environ.get("VLLM_API_KEY"),
        timeouts=Timeouts(stall=30, total=None),
        retry=RetryPolicy(attempts=2, base=0.1),
        max_concurrency=8,
        max_pending=0,
        queue_size=64,
        max_event_bytes=2**20,
        headers={"X-Tenant": "t1"},
        proxies={"http": "http://proxy:3128"},
        trust_env=False,
        verify="/etc/ssl/ca.pem",
        cert=("client.pem", "client.key"),
        pool_id="p",
        replica_id="r0",
    )


def construct_wrongly() -> None:
    """What mypy must refuse; an unused ignore is an error, so this can fail."""
    VllmHttpAdapter()  # type: ignore[call-arg]
    VllmHttpAdapter("http://localhost", "key")  # type: ignore[call-arg]
    VllmHttpAdapter("http://localhost", max_concurrency="8")  # type: ignore[arg-type]
    TaskRequest("Hello")  # type: ignore[arg-type, call-arg]
    TaskRequest(prompt=5)  # type: ignore[arg-type]
    TaskRequest(prompt="Hello", max_token=5)  # type: ignore[call-arg]
    Timeout("slow", phase="nap")  # type: ignore[arg-type]


def tasks() -> list[TaskRequest]:
    """The three kinds of input."""
    return [
        TaskRequest(prompt="Hello", model="m", max_tokens=5, temperature=0.7, seed=42),
        TaskRequest(prompt=[1, 2, 3], extra_body={"stop": ["."], "n": 2}),
        TaskRequest(messages=[{"role": "user", "content": "Hello"}], job_id="j1", deadline_ms=9000),
    ]


def loop(adapter: VllmHttpAdapter, task: TaskRequest) -> int:
    """The four events are all there are."""
    with adapter.submit(task, timeouts=Timeouts()) as stream:
        assert_type(stream, TokenStream)
        for event in stream:
            assert_type(event, Started | Token | End | Error)
            match event:
                case Started(job_id=job_id, engine_version=version, request_id=request_id):
                    assert_type(job_id + version + request_id, str)
                case Token(text=text, index=index, choice=choice, token_ids=ids, logprobs=logprobs):
                    assert_type(text, str)
                    assert_type(index + choice, int)
                    assert_type(ids, list[int] | None)
                    assert_type(logprobs, list[Logprob] | None)
                case End(metrics=metrics, finish_reason=reason, choices=choices):
                    assert_type(metrics, Metrics)
                    assert_type(reason, str)
                    assert_type(choices, list[Choice])
                    return metrics.tokens_generated
                case Error(error=error):
                    assert_type(error, WorkerError)
                    raise error
                case _:
                    assert_never(event)
    return 0


def drain(stream: TokenStream) -> str:
    """The other ways to take what comes."""
    assert_type(iter(stream), TokenStream)
    assert_type(next(stream), TokenEvent)
    assert_type(stream.get(timeout=1.0), TokenEvent | None)
    assert_type(stream.job_id, str)
    assert_type(stream.done, bool)
    received: queue.Queue[TokenEvent] = stream.receiver
    assert_type(received.get(), TokenEvent)
    pieces: Iterator[str] = stream.text()
    stream.cancel()
    stream.close()
    completion = stream.result(timeout=5)
    assert_type(completion, Completion)
    assert_type(completion.error, WorkerError | None)
    assert_type(completion.metrics, Metrics | None)
    return completion.text + "".join(pieces)


def failures(adapter: VllmHttpAdapter, task: TaskRequest) -> str:
    """Errors by class, with their attributes."""
    try:
        return adapter.submit(task).result().text
    except Timeout as error:
        assert_type(error.phase, Literal["queued", "connect", "first_token", "stall", "deadline"])
        return error.phase
    except InvalidRequest as error:
        as_value_error: ValueError = error
        return str(as_value_error)
    except EngineUnavailable as error:
        assert_type(error.retry_after_ms, int | None)
        assert_type(error.retriable, bool)
        return error.code
    except WorkerError as error:
        assert_type(error.status, int | None)
        assert_type(error.partial, Completion | None)
        assert_type(error.to_dict(), dict[str, Any])
        return error.message + (error.job_id or "")


def values(task: TaskRequest, event: TokenEvent, completion: Completion) -> None:
    """All of them travel as JSON, and keep their types."""
    assert_type(task.to_json(), str)
    assert_type(TaskRequest.from_json("{}"), TaskRequest)
    assert_type(TaskRequest.from_dict({}), TaskRequest)
    assert_type(event.to_json(), str)
    assert_type(event.to_dict(), dict[str, Any])
    assert_type(event_from_json(b"{}"), TokenEvent)
    assert_type(event_from_dict({}), TokenEvent)
    assert_type(completion.to_json(), str)
    assert_type(Completion.from_json("{}"), Completion)
    Timeouts().stall = 5  # type: ignore[misc]


def look(adapter: VllmHttpAdapter) -> bool:
    """The small calls."""
    assert_type(adapter.health(), HealthStatus)
    assert_type(adapter.props(), EngineProps)
    assert_type(adapter.engine_version(), str)
    assert_type(adapter.models(), list[Model])
    assert_type(adapter.metrics(), EngineMetrics)
    adapter.cancel("j1")
    adapter.close(timeout=1.0)
    return adapter.health().state is HealthState.HEALTHY


def orchestrate(task: TaskRequest) -> None:
    """The registry takes whatever fulfils the Protocol."""
    with AdapterRegistry.from_env({}, api_key="k", timeouts=Timeouts()) as registry:
        registry.bind("p", "r0", construct())
        registry.bind("p", "r1", Recording(construct()))
        registry.bind("p", "r2", object())  # type: ignore[arg-type]
        assert_type(registry.get("p", "r0"), WorkerAdapter)
        assert_type(registry.submit("p", task), TokenStream)
        assert_type(registry.health("p"), dict[str, HealthStatus])
        registry.cancel("j1")
        registry.unbind("p", "r0")
        registry.shutdown()


adapters: list[WorkerAdapter] = [construct(), Recording(construct())]
