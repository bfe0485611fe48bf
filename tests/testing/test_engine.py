"""The engine as a whole: its life, its journal, its overrides, its load."""

from __future__ import annotations

import json
import threading

import pytest
from testing.raw_client import RawClient, read_response

from vllm_http.testing import FakeEngine, Stall, Status, Text, Tokens, Wait


def test_close_ends_threads_and_connections(engine: FakeEngine, client: RawClient) -> None:
    """After close no thread of the engine is left, and open connections have ended."""
    engine.script(Stall())
    client.start()
    engine.wait_for_requests(1)
    with RawClient(engine) as idle:
        idle.get("/health")

        engine.close()

        assert client.stream.read() == b""
        assert idle.stream.read() == b""
    names = [thread.name for thread in threading.enumerate()]
    assert [name for name in names if name.startswith("fake-engine")] == []


def test_close_wakes_an_event_wait(engine: FakeEngine, client: RawClient) -> None:
    """A step that waits for an event that never comes does not outlive the engine."""
    engine.script(Wait(threading.Event()))
    client.start()
    (request,) = engine.wait_for_requests(1)

    engine.close()

    assert request.finished.is_set()


def test_closed_engine_refuses(engine: FakeEngine) -> None:
    """A closed engine refuses connections; closing it again does nothing."""
    engine.close()
    engine.close()

    with pytest.raises(ConnectionRefusedError):
        RawClient(engine)


def test_restart_keeps_port_and_journal(engine: FakeEngine) -> None:
    """An engine that died comes back on its port, with its scripts and its journal."""
    port = engine.port
    engine.script(Status(503))
    with RawClient(engine) as client:
        client.get("/health")
    engine.close()

    engine.start()

    with RawClient(engine) as client:
        assert client.complete().head.status == 503
    assert engine.port == port
    assert [request.path for request in engine.requests] == ["/health", "/v1/completions"]
    assert engine.connections == 2


def test_restart_with_a_client_connected(engine: FakeEngine, client: RawClient) -> None:
    """Connections that the dead engine left behind do not keep it from its port."""
    client.get("/health")
    engine.close()

    engine.start()

    with RawClient(engine) as fresh:
        assert fresh.get("/health").head.status == 200


def test_start_twice_is_once(engine: FakeEngine) -> None:
    """Starting an engine that runs does nothing."""
    port = engine.port

    engine.start()

    assert engine.port == port


def test_url_names_the_port(engine: FakeEngine) -> None:
    """The url is where it listens."""
    assert engine.url == f"http://127.0.0.1:{engine.port}"
    assert engine.url in repr(engine)


def test_scripts_queue_up(engine: FakeEngine, client: RawClient) -> None:
    """Each script serves one request; then the normal answer comes again."""
    engine.script(Text("first"))
    engine.script(Text("second"))

    streams = [client.complete(stream=True, max_tokens=1) for _ in range(3)]

    assert [stream.texts for stream in streams[:2]] == [["first"], ["second"]]
    assert streams[2].chunks[-1] == b"data: [DONE]\n\n"


def test_only_generations_take_scripts(engine: FakeEngine, client: RawClient) -> None:
    """Small requests leave the scripts alone."""
    engine.script(Text("mine"))

    assert client.get("/version").json == {"version": "0.32.0"}
    assert client.complete(stream=True).texts == ["mine"]


def test_journal_keeps_headers_as_sent(engine: FakeEngine, client: RawClient) -> None:
    """A request is kept with its headers in order and case, and its body."""
    headers = [("X-B", "1"), ("x-a", "2"), ("x-b", "3")]
    client.request("POST", "/v1/completions?q=1", {"prompt": "Hé"}, headers)

    (request,) = engine.wait_for_requests(1, path="/v1/completions")

    assert (request.method, request.path, request.connection) == ("POST", "/v1/completions?q=1", 1)
    assert request.headers[1:4] == headers
    assert request.header("X-A") == "2"
    assert request.header("absent") is None
    assert request.headers_named("x-b") == ["1", "3"]
    assert request.json == json.loads(request.body) == {"prompt": "Hé"}
    assert request.finished.wait(5)
    assert not request.hung_up.is_set()


def test_wait_for_requests_counts_a_path(engine: FakeEngine, client: RawClient) -> None:
    """Only requests to the path count, where one is given."""
    client.get("/version")
    client.get("/health")

    (request,) = engine.wait_for_requests(1, path="/health")

    assert request.path == "/health"
    assert len(engine.wait_for_requests(2)) == 2


def test_wait_for_requests_names_what_came(engine: FakeEngine, client: RawClient) -> None:
    """A wait in vain says what came instead."""
    client.get("/version")

    with pytest.raises(TimeoutError, match=r"2 requests to any path.*GET /version on connection 1"):
        engine.wait_for_requests(2, timeout=0.01)


def test_wait_idle_gives_up(engine: FakeEngine, client: RawClient) -> None:
    """A wait for an engine that stays busy says how busy it is."""
    engine.script(Stall())
    client.start()
    engine.wait_for_requests(1)

    with pytest.raises(TimeoutError, match="1 requests still run"):
        engine.wait_idle(timeout=0.01)


@pytest.mark.parametrize("path", ["/health", "/version", "/v1/models", "/metrics", "/other"])
def test_override(engine: FakeEngine, client: RawClient, path: str) -> None:
    """Any GET path can be made to answer anything, from now on."""
    engine.override(path, 500, {"a": 1}, {"x-b": "2"})

    for response in (client.get(path), client.get(path)):
        assert response.head.status == 500
        assert response.head.header("x-b") == "2"
        assert response.json == {"a": 1}


def test_override_with_bytes_or_nothing(engine: FakeEngine, client: RawClient) -> None:
    """An override's body may be bytes or None; the last override counts."""
    engine.override("/health", 503, None)
    assert (client.get("/health").head.status, client.get("/health").body) == (503, b"")

    engine.override("/health", 200, b"fine")
    assert client.get("/health").body == b"fine"


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        ("/v1/models", "Bearer secret", 200),
        ("/v1/models", "bearer secret", 200),
        ("/v1/models", "Bearer wrong", 401),
        ("/v1/models", "Basic secret", 401),
        ("/health", "", 200),
        ("/metrics", "", 200),
    ],
)
def test_key_guards_v1(path: str, authorization: str, status: int) -> None:
    """With a key, /v1 demands it as a bearer in any case; the rest stays open."""
    with FakeEngine(api_key="secret") as engine, RawClient(engine) as client:
        client.request("GET", path, headers=[("Authorization", authorization)])

        assert read_response(client.stream).head.status == status


def test_metrics_tell_the_load(engine: FakeEngine, client: RawClient) -> None:
    """/metrics counts what runs now."""
    engine.script(Stall())
    client.start()
    engine.wait_for_requests(1)

    with RawClient(engine) as other:
        text = other.get("/metrics").body.decode()

    assert 'vllm:num_requests_running{engine="0",model_name="fake-model"} 1.0\n' in text


def test_metrics_count_tokens(engine: FakeEngine, client: RawClient) -> None:
    """/metrics adds up the tokens and the reasons of all answers, whole, streamed or cut."""
    client.complete(prompt="a b c", max_tokens=4)
    client.complete(prompt="a b", max_tokens=2, stream=True, n=2)
    engine.script(Tokens(5))
    client.complete(prompt="a", stream=True)
    engine.wait_idle()

    response = client.get("/metrics")

    assert response.head.header("content-type") == "text/plain; version=1.0.0; charset=utf-8"
    lines = response.body.decode().splitlines()
    labels = 'engine="0",model_name="fake-model"'
    assert f"vllm:prompt_tokens_total{{{labels}}} 6.0" in lines
    assert f"vllm:generation_tokens_total{{{labels}}} 13.0" in lines
    assert (
        'vllm:request_success_total{engine="0",finished_reason="length",model_name="fake-model"}'
        " 3.0" in lines
    )
