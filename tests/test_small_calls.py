"""health, props, models, metrics and engine_version: right, bounded, and calm about bad engines."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import support
from peers import Peer, read_head
from support import SOON, a_task, posts, stopwatch

from vllm_http import HealthState, HealthStatus, Model, VllmHttpAdapter, WorkerError
from vllm_http.testing import FakeEngine, Stall, Tokens


engine, adapter, silent = support.engine, support.adapter, support.silent

DEEP = b"[" * 200_000


def test_healthy(adapter: VllmHttpAdapter) -> None:
    """An engine that answers and lists its model is healthy."""
    status = adapter.health()

    assert status.state is HealthState.HEALTHY
    assert status.message
    assert 0 < status.latency_ms < SOON * 1000


def test_busy_is_healthy(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """An engine at work on a task is as healthy as an idle one."""
    engine.script(Tokens(1), Stall())
    with adapter.submit(a_task()):
        posts(engine)
        assert adapter.health().state is HealthState.HEALTHY


@pytest.mark.parametrize(
    ("path", "status", "body", "state"),
    [
        ("/v1/models", 200, {"object": "list", "data": []}, HealthState.DEGRADED),
        ("/v1/models", 500, {"error": {"message": "no", "code": 500}}, HealthState.DEGRADED),
        ("/v1/models", 404, {"detail": "Not Found"}, HealthState.DEGRADED),
        ("/v1/models", 200, b"<html>", HealthState.DEGRADED),
        ("/v1/models", 200, ["nonsense"], HealthState.DEGRADED),
        pytest.param("/v1/models", 200, DEEP, HealthState.DEGRADED, id="deep"),
        ("/health", 503, b"", HealthState.UNHEALTHY),
    ],
)
def test_unwell(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    path: str,
    status: int,
    body: object,
    state: HealthState,
) -> None:
    """What a user would notice is degraded; a dead engine process is unhealthy."""
    engine.override(path, status, body)

    assert adapter.health().state is state


def test_refused_is_unhealthy(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A port where nobody listens is unhealthy, and recovers with the engine."""
    engine.close()
    assert adapter.health().state is HealthState.UNHEALTHY

    engine.start()
    assert adapter.health().state is HealthState.HEALTHY


def test_wrong_key_is_degraded() -> None:
    """An engine that would refuse every task for its key is not healthy."""
    with FakeEngine(api_key="right") as engine, VllmHttpAdapter(engine.url, api_key="k") as adapter:
        assert adapter.health().state is HealthState.DEGRADED


def test_props(adapter: VllmHttpAdapter) -> None:
    """props tells what the engine is and serves."""
    props = adapter.props()

    assert (props.engine_type, props.engine_version) == ("vllm", "0.32.0")
    assert (props.supports_streaming, props.supports_sessions) == (True, False)
    assert (props.models, props.max_model_len, props.max_batch_size) == (["fake-model"], 2048, None)


def test_models(adapter: VllmHttpAdapter) -> None:
    """models lists what may be put into a task."""
    (model,) = adapter.models()

    assert (model.id, model.max_model_len) == ("fake-model", 2048)


def test_lora_adapters_are_told_apart(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A LoRA adapter names its base model, which names none; its card has no context length."""
    cards = [
        {"id": "base", "root": "/models/base", "parent": None, "max_model_len": 2048},
        {"id": "sql", "root": "/loras/sql", "parent": "base", "max_model_len": None},
        {"id": "odd", "root": 5, "parent": ["base"], "max_model_len": "2048"},
        "nonsense",
    ]
    engine.override("/v1/models", 200, {"object": "list", "data": cards})

    base, lora, odd = adapter.models()

    assert base == Model("base", max_model_len=2048, root="/models/base", parent=None)
    assert lora == Model("sql", max_model_len=None, root="/loras/sql", parent="base")
    assert odd == Model("odd")
    assert adapter.props().max_model_len == 2048


def test_metrics_of_a_busy_engine(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """metrics has the engine's own figures."""
    engine.script(Tokens(1), Stall())
    with adapter.submit(a_task()):
        posts(engine)
        assert adapter.metrics().running == 1


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"\xff\xfe{{{"])
def test_metrics_of_something_else(
    engine: FakeEngine, adapter: VllmHttpAdapter, body: bytes
) -> None:
    """A /metrics that holds no metrics is a WorkerError, not figures."""
    engine.override("/metrics", 200, body)

    with pytest.raises(WorkerError):
        adapter.metrics()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *[(404, {"detail": "Not Found"}), (200, b"junk"), (200, {}), (200, {"version": 5})],
        *[(200, []), pytest.param(200, DEEP, id="deep")],
    ],
)
def test_unknown_version(
    engine: FakeEngine, adapter: VllmHttpAdapter, status: int, body: object
) -> None:
    """An engine without a sensible version has an unknown one, also in its props."""
    engine.override("/version", status, body)

    assert adapter.engine_version() == "unknown"
    assert adapter.props().engine_version == "unknown"


CALLS: list[Callable[[VllmHttpAdapter], object]] = [
    VllmHttpAdapter.props,
    VllmHttpAdapter.models,
    VllmHttpAdapter.metrics,
]


@pytest.mark.parametrize("call", CALLS)
def test_calls_raise_only_our_errors(
    engine: FakeEngine, adapter: VllmHttpAdapter, call: Callable[[VllmHttpAdapter], object]
) -> None:
    """Where there is nobody, the calls that return facts raise a WorkerError."""
    engine.close()

    with pytest.raises(WorkerError):
        call(adapter)
    assert adapter.engine_version() == "unknown"


@pytest.mark.parametrize("call", [*CALLS, VllmHttpAdapter.health, VllmHttpAdapter.engine_version])
def test_engine_that_goes_down_upon_a_kept_connection(
    call: Callable[[VllmHttpAdapter], object],
) -> None:
    """A kept connection that dies, and nobody behind it, is what it is without one."""

    def answer_once(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n" + b'{"version": "1.2"}\n')
        read_head(sock)
        peer.stop_listening()

    with Peer(answer_once) as peer, VllmHttpAdapter(peer.url()) as adapter:
        adapter._probe.version()  # unlike engine_version(), it remembers nothing
        said = outcome(adapter, call)

    if isinstance(said, HealthStatus):
        assert said.state is HealthState.UNHEALTHY
    else:
        assert said in ("EngineUnavailable", "unknown")
    assert peer.accepted == 1


def test_small_calls_are_bounded(silent: str) -> None:
    """A server that takes connections and says nothing costs five seconds, with each call."""
    calls = [*CALLS, VllmHttpAdapter.engine_version, VllmHttpAdapter.health]
    with (
        VllmHttpAdapter(silent) as mute,
        ThreadPoolExecutor(len(calls)) as pool,
        stopwatch() as watch,
    ):
        *errors, version, health = pool.map(partial(outcome, mute), calls)

    assert watch.seconds < 5 + SOON
    assert set(errors) <= {"Timeout", "EngineUnavailable"}
    assert version == "unknown"
    assert getattr(health, "state", None) is HealthState.UNHEALTHY


def outcome(adapter: VllmHttpAdapter, call: Callable[[VllmHttpAdapter], object]) -> object:
    """What a call returns, or the name of the error that it raises."""
    try:
        return call(adapter)
    except WorkerError as error:
        return type(error).__name__
