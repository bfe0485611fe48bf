"""A connection's life: reuse, idle close, and the requests that HTTP/1.1 allows."""

from __future__ import annotations

import http.client
import time

import pytest
from testing.raw_client import RawClient, read_head, read_response

from vllm_http.testing import FakeEngine


def test_connection_is_reused(engine: FakeEngine, client: RawClient) -> None:
    """Whole answers, streams and refusals all leave the connection usable."""
    client.complete(max_tokens=1)
    client.complete(max_tokens=1, stream=True)
    client.complete(temperature=9)
    client.get("/nope")

    assert client.get("/health").head.status == 200
    assert engine.connections == 1
    assert [request.connection for request in engine.requests] == [1] * 5


def test_standard_client_reuses_it(engine: FakeEngine) -> None:
    """The standard library's client reads streams to their end on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=5)
    for _ in range(2):
        headers = {"Content-Type": "application/json"}
        body = '{"prompt": "Hi", "stream": true}'
        connection.request("POST", "/v1/completions", body, headers)
        assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
    connection.close()

    assert engine.connections == 1


def test_idle_connection_is_closed() -> None:
    """An answered connection is closed, silently, once idle for the keep-alive time."""
    with FakeEngine(keep_alive=0.05) as engine, RawClient(engine) as client:
        client.get("/health")
        begin = time.monotonic()

        assert client.stream.read() == b""
        assert time.monotonic() - begin >= 0.04


def test_fresh_connection_is_not_idle() -> None:
    """Before its first request a connection may wait longer than the keep-alive time."""
    with FakeEngine(keep_alive=0.02) as engine, RawClient(engine) as early:
        with RawClient(engine) as client:
            client.get("/health")
            client.stream.read()

        assert early.get("/health").head.status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_connection_close_is_honoured(client: RawClient, stream: bool) -> None:
    """A client that asks for it gets `connection: close` and the connection's end."""
    body = {"prompt": "Hi", "stream": stream}
    client.request("POST", "/v1/completions", body, [("Connection", "close")])

    response = read_response(client.stream)

    assert response.head.header("connection") == "close"
    assert client.stream.read() == b""


def test_http_1_0_gets_chunks_and_a_close(client: RawClient) -> None:
    """As under uvicorn, an HTTP/1.0 client gets chunks too, and then the end."""
    client.send(
        b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
        b'Content-Length: 30\r\n\r\n{"prompt": "a", "stream":true}'
    )

    response = read_response(client.stream)

    assert response.head.header("connection") == "close"
    assert response.chunks[-1] == b"data: [DONE]\n\n"
    assert client.stream.read() == b""


def test_expect_continue(client: RawClient) -> None:
    """`Expect: 100-continue` gets its 100 before the body is sent."""
    client.send(
        b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 15\r\nExpect: 100-continue\r\n\r\n"
    )
    assert read_head(client.stream).status == 100

    client.send(b'{"prompt": "a"}')

    assert read_response(client.stream).head.status == 200


def test_request_in_single_bytes(engine: FakeEngine, client: RawClient) -> None:
    """A request may come in any number of pieces."""
    for byte in b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n":
        client.send(bytes([byte]))

    assert read_response(client.stream).json == {"version": "0.32.0"}
    assert engine.requests[0].header("host") == "a"


def test_chunked_request(engine: FakeEngine, client: RawClient) -> None:
    """A chunked request body is put together, extensions and trailers aside."""
    client.send(
        b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n9;a=b\r\n{"prompt"\r\n'
        b'6\r\n: "a"}\r\n0\r\nX-T: 1\r\n\r\n'
    )

    assert read_response(client.stream).head.status == 200
    assert engine.requests[0].body == b'{"prompt": "a"}'


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"],
    ids=["no HTTP", "no length"],
)
def test_garbage_is_refused(engine: FakeEngine, client: RawClient, garbage: bytes) -> None:
    """What is no HTTP gets a 400 and the connection's end, and is no request."""
    client.send(garbage)

    assert client.stream.read().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert engine.requests == []


def test_head_has_no_body(client: RawClient) -> None:
    """HEAD is a wrong method everywhere, and its 405 has no body."""
    client.request("HEAD", "/health")

    head = read_head(client.stream)

    assert (head.status, head.header("allow"), head.header("content-length")) == (405, "GET", "31")
    assert client.get("/health").head.status == 200
