"""embed, score, rerank, tokenize and detokenize: their errors, their retries, their answers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import support
from calls_support import (
    CALLS,
    PATHS,
    REFUSAL,
    TOKENS,
    cut,
    every_call,
    hang_up,
    quick,
    replying,
    says,
    the_failure,
)
from support import EARLY, ONCE, SOON, a_task, stopwatch

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    RetryPolicy,
    StreamingError,
    Timeout,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import FakeEngine, Stall


engine = support.engine


@every_call
@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        (400, InvalidRequest, 1),
        (401, InvalidRequest, 1),
        (404, InvalidRequest, 1),
        (408, Timeout, 1),
        (409, CapacityExceeded, 1),
        (422, InvalidRequest, 1),
        (429, CapacityExceeded, 3),
        (500, EngineUnavailable, 2),
        (501, EngineUnavailable, 1),
        (502, EngineUnavailable, 3),
        (503, EngineUnavailable, 3),
        (504, EngineUnavailable, 3),
        (307, EngineUnavailable, 1),
    ],
)
def test_refused_by_status(call: str, status: int, kind: type[WorkerError], requests: int) -> None:
    """Each refusal has the class and the number of tries that it has for a task."""
    policy = RetryPolicy(attempts=3, base=0.001, cap=0.001)
    with replying(says(REFUSAL, status)) as server, quick(server.url, retry=policy) as adapter:
        error = the_failure(lambda: CALLS[call](adapter))

    assert type(error) is kind
    assert error.status == status
    assert [post.path for post in server.posts] == [PATHS[call]] * requests


@every_call
def test_route_that_the_model_does_not_serve(call: str) -> None:
    """A 404 says so by its code: embeddings of a generating model, for one."""
    with replying(says({"detail": "Not Found"}, 404)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: CALLS[call](adapter))

    assert (error.code, error.retriable) == ("UPSTREAM_NOT_FOUND", False)
    assert f"404 for {server.url}{PATHS[call]}: Not Found" in error.message
    assert ("--runner pooling" in error.message) is (call in ("embed", "score", "rerank"))


PAGE = b"<html><title>It works!</title><p>long</p></html>"


@every_call
@pytest.mark.parametrize(
    ("form", "kind", "requests"),
    [
        ({"error": {"message": "no", "code": 400}}, InvalidRequest, 1),
        ({"message": "no", "code": "429"}, CapacityExceeded, 4),
        ({"error": "no"}, EngineUnavailable, 4),
    ],
    ids=str,
)
def test_refused_inside_a_200(call: str, form: Any, kind: type[WorkerError], requests: int) -> None:
    """As a task is: the engine's words come out, and its number says whether to try again."""
    with replying(says(form)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: CALLS[call](adapter))

    assert type(error) is kind
    assert error.message.endswith(": no")
    assert len(server.posts) == requests


@every_call
@pytest.mark.parametrize("status", [200, 404])
def test_web_page_for_an_answer(call: str, status: int) -> None:
    """It is told as what it is, where it is, and in one line; and not asked for again."""
    with replying(says(PAGE, status)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: CALLS[call](adapter))

    assert "this is no vLLM server" in error.message
    assert server.url + PATHS[call] in error.message
    assert "It works!" in error.message
    assert "<" not in error.message
    assert (error.retriable, len(server.posts)) == (False, 1)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("identity", bytes),
        ("none", bytes),
        ("", bytes),
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("gzip, identity", gzip.compress),
        ("identity ,gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_content_codings(coding: str, packed: Callable[[bytes], bytes], status: int) -> None:
    """Documents, and the words of refusals, are read as streams are."""
    body = packed(json.dumps(TOKENS if status == 200 else {"error": "Bad day"}).encode())
    with (
        replying(says(body, status, f"content-encoding: {coding}")) as server,
        quick(server.url) as adapter,
    ):
        if status == 200:
            assert adapter.tokenize("Hello").tokens == [5, 6]
        else:
            assert the_failure(lambda: adapter.tokenize("Hello")).message.endswith(": Bad day")


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "gzip, br"])
def test_content_coding_that_nobody_asked_for(coding: str) -> None:
    """It is named, and not asked for again; a refusal is one without its words."""
    header = f"content-encoding: {coding}"
    with (
        replying(says(b"\x1b\x00", 200, header), says(b"\x1b\x00", 400, header)) as server,
        quick(server.url) as adapter,
    ):
        errors = [the_failure(lambda: adapter.tokenize("Hello")) for _ in range(2)]

    assert f"in content encoding {coding}, which was not asked for" in errors[0].message
    assert errors[1].message == "engine answered 400"
    assert len(server.posts) == 2


@pytest.mark.parametrize("failing", [says(REFUSAL, 503), hang_up, cut(b'{"count": 2', 4000)])
def test_answer_after_failures(failing: Any) -> None:
    """A refusal, a hang-up and a cut answer are tried again, and the caller sees none of it."""
    with replying(failing, failing, says(TOKENS)) as server, quick(server.url) as adapter:
        tokens = adapter.tokenize("Hello").tokens

    assert tokens == [5, 6]
    ids = [post.header("X-Request-Id") for post in server.posts]
    assert len(set(ids)) == len(ids) == 3
    assert len({post.header("X-Correlation-Id") for post in server.posts}) == 1
    assert [post.body for post in server.posts] == [{"prompt": "Hello"}] * 3


def test_refused_connection_is_tried_again(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that comes up between two attempts answers the second one."""
    engine.close()
    with quick(engine.url) as adapter:
        monkeypatch.setattr(adapter._asker, "pause", lambda seconds: engine.start())
        assert adapter.tokenize("Hello").count == 1


def test_refused_connection_in_the_end(engine: FakeEngine) -> None:
    """A port where nobody listens is an EngineUnavailable without a status."""
    engine.close()
    with quick(engine.url) as adapter:
        error = the_failure(lambda: adapter.embed("Hello"))

    assert type(error) is EngineUnavailable
    assert (error.status, error.retriable) == (None, True)


def test_old_connection_is_closed_before_the_next_attempt() -> None:
    """Two copies of a request would double the engine's load."""
    half = cut(b'{"count": 2', 4000)
    with replying(half, says(TOKENS)) as server, quick(server.url) as adapter:
        adapter.tokenize("Hello")

    assert [post.connection for post in server.posts] == [1, 2]


def test_connections_are_used_again(engine: FakeEngine) -> None:
    """One call after the other goes out on one connection."""
    with quick(engine.url) as adapter:
        for _ in range(5):
            adapter.embed("Hello")
            adapter.tokenize("Hello")

    assert engine.connections == 1


def test_kept_connection_that_died_costs_no_attempt() -> None:
    """A server that drops an idle connection has not seen the question: it is asked once more."""
    with (
        replying(says(TOKENS), hang_up, says(TOKENS)) as server,
        quick(server.url, retry=ONCE) as adapter,
    ):
        assert [adapter.tokenize("Hello").count for _ in range(2)] == [2, 2]

    assert [post.connection for post in server.posts] == [1, 1, 2]


def test_retry_after_is_obeyed() -> None:
    """The engine's wait counts where it is longer than ours."""
    later = says(REFUSAL, 429, "retry-after: 0.3")
    with (
        replying(later, says(TOKENS)) as server,
        quick(server.url) as adapter,
        stopwatch() as watch,
    ):
        adapter.tokenize("Hello")

    assert 0.3 - EARLY <= watch.seconds < SOON


@pytest.mark.parametrize(
    ("policy", "timeout"),
    [(RetryPolicy(max_retry_after=5.0), None), (RetryPolicy(), 5.0)],
    ids=["beyond the policy", "beyond the call's time"],
)
def test_retry_after_that_is_too_long(policy: RetryPolicy, timeout: float | None) -> None:
    """The call fails at once with the refusal, and tells how long the engine asked to wait."""
    later = says(REFUSAL, 503, "retry-after: 9")
    with (
        replying(later) as server,
        quick(server.url, retry=policy) as adapter,
        stopwatch() as watch,
    ):
        error = the_failure(lambda: adapter.tokenize("Hello", timeout=timeout))

    assert (error.status, error.retry_after_ms) == (503, 9000)
    assert (len(server.posts), watch.seconds < 9) == (1, True)


@every_call
@pytest.mark.parametrize(
    "body",
    [b"<html>hello</html>", b"", b"[" * 200_000, b"[]", b"{}", b"null", b'{"data": 5}', b"\xff"],
    ids=["html", "empty", "deep", "list", "object", "null", "number", "no utf-8"],
)
def test_answer_to_another_question(call: str, body: bytes) -> None:
    """A 200 that cannot be read is a StreamingError: not ours, and not worth another attempt."""
    with replying(says(body)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: CALLS[call](adapter))

    assert type(error) is StreamingError
    assert error.retriable is False
    assert PATHS[call] in error.message
    assert len(server.posts) == 1


def test_secrets_stay_secret() -> None:
    """The key is sent, and an engine that repeats it does not get it into the error."""
    echo = says({"error": "no such key: sk-very-secret-key"}, 401)
    with replying(echo) as server, quick(server.url, api_key="sk-very-secret-key") as adapter:
        error = the_failure(lambda: adapter.embed("Hello"))

    assert server.posts[0].header("Authorization") == "Bearer sk-very-secret-key"
    assert error.code == "UPSTREAM_AUTH"
    assert "very-secret" not in f"{error} {error!r} {error.to_dict()}"


def test_calls_do_not_take_a_tasks_place(engine: FakeEngine) -> None:
    """An adapter whose only place is taken by a task still answers calls."""
    engine.script(Stall())
    with (
        VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter,
        adapter.submit(a_task()),
    ):
        engine.wait_for_requests(1, path="/v1/completions")
        assert adapter.embed("Hello", timeout=SOON).tokens_in == 1


def test_many_threads_at_once(engine: FakeEngine) -> None:
    """Each caller gets the answer to its own question."""
    texts = [" ".join(["word"] * (n + 1)) for n in range(60)]
    with quick(engine.url) as adapter, ThreadPoolExecutor(20) as pool:
        counts = list(pool.map(lambda text: adapter.tokenize(text).count, texts))

    assert counts == list(range(1, 61))
