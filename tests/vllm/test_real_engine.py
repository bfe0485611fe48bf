"""What an adapter tells of a real engine is so."""

from __future__ import annotations

import re

from vllm_http import HealthState, TaskRequest, Token, VllmHttpAdapter

from .server import CONTEXT, MODEL, Server


def test_a_living_engine_is_healthy(adapter: VllmHttpAdapter) -> None:
    """An engine that serves a model is healthy, and asking took some time."""
    health = adapter.health()

    assert health.state is HealthState.HEALTHY
    assert health.latency_ms > 0


def test_models(adapter: VllmHttpAdapter) -> None:
    """The model is listed under its served name, with the context that the server was given."""
    (model,) = adapter.models()

    assert (model.id, model.max_model_len) == (MODEL, CONTEXT)


def test_props(adapter: VllmHttpAdapter) -> None:
    """The engine is described by what it says of itself."""
    props = adapter.props()

    assert (props.engine_type, props.engine_version) == ("vllm", "0.32.0")
    assert props.engine_version == adapter.engine_version()
    assert props.supports_streaming is True
    assert list(props.models) == [MODEL]
    assert props.max_model_len == CONTEXT


def test_metrics_of_an_engine_at_work(adapter: VllmHttpAdapter) -> None:
    """The numbers of /metrics follow what the engine does."""
    task = TaskRequest(model=MODEL, prompt="Hello", max_tokens=500, extra_body={"ignore_eos": True})
    with adapter.submit(task) as stream:
        next(event for event in stream if isinstance(event, Token))
        metrics = adapter.metrics()

    assert (metrics.running, metrics.waiting) == (1, 0)
    assert metrics.kv_cache_usage is not None
    assert 0 < metrics.kv_cache_usage < 1
    assert metrics.prefix_cache_queries is not None
    assert metrics.prefix_cache_queries > 0


def test_connections_are_used_again(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """Tasks one after the other come to the server from two ports at most.

    From two, since a task may begin while the last one's connection is read to its end.
    """
    for _ in range(6):
        with adapter.submit(TaskRequest(model=MODEL, prompt="Hello", max_tokens=3)) as stream:
            stream.result()

    request = re.compile(r'127\.0\.0\.1:(\d+) - "POST /v1/completions ')
    ports = [match[1] for match in map(request.search, vllm.log_lines()) if match]
    assert len(ports) >= 6
    assert len(set(ports[-6:])) <= 2
