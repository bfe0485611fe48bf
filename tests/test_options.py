"""The adapter's arguments: what is refused, and what becomes of the base URL and the headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vllm_http import Error, HealthState, InvalidRequest, TaskRequest, Token, VllmHttpAdapter
from vllm_http.testing import FakeEngine, ReceivedRequest, Status


HUSH = "HUSH-0123456789"
URL = "http://127.0.0.1:1"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


def refusal(base_url: Any = URL, **options: Any) -> str:
    """What the constructor says when it refuses these arguments."""
    with pytest.raises(InvalidRequest) as caught:
        VllmHttpAdapter(base_url, **options)
    return f"{caught.value} {caught.value!r}"


def sent(engine: FakeEngine, base_url: str, **options: Any) -> ReceivedRequest:
    """The completions request that an adapter with these arguments sends."""
    engine.script(Status(418, {"error": {"message": "seen", "code": 418}}))
    with VllmHttpAdapter(base_url, **options) as adapter:
        for _ in adapter.submit(TaskRequest(prompt="Hello")):
            pass
    (request,) = [one for one in engine.requests if one.method == "POST"]
    return request


# The base URL.


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "127.0.0.1",
        "ftp://localhost",
        "file:///etc/passwd",
        "http://",
        "http:///v1",
        "http://:8000",
        "http://localhost:99999",
        "http://localhost:port",
        "http://local host",
        "http://localhost/a b",
        "http://localhost\r\nX-Evil: 1",
        "http://localhost/\r\nX-Evil: 1",
        "http://[::1",
    ],
)
def test_a_bad_base_url_is_refused(url: str) -> None:
    """Named, with its value, on one line."""
    said = refusal(url)

    assert said.startswith("base_url")
    assert repr(url) in said or repr(repr(url))[1:-1] in said
    assert "\n" not in said


@pytest.mark.parametrize("url", [" ", None, 5, b"http://localhost", ["http://localhost"]])
def test_a_base_url_is_text(url: Any) -> None:
    """Anything else is refused, and blank text is none."""
    assert refusal(url).startswith("base_url")


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{HUSH}@localhost",
        f"http://{HUSH}@localhost",
        f"http://:{HUSH}@h:99999",
        f"http://localhost?token={HUSH}",
        f"http://localhost#{HUSH}",
    ],
)
def test_secrets_in_the_base_url_are_refused_unseen(url: str) -> None:
    """They would be in every log line that shows it; a query may hold a token."""
    said = refusal(url)

    assert said.startswith("base_url")
    assert HUSH not in said


@pytest.mark.parametrize("url", ["http://localhost:8000", "https://[::1]:8000/x", "HTTP://H"])
def test_usual_base_urls_are_taken(url: str) -> None:
    """Nothing is opened by making an adapter."""
    VllmHttpAdapter(url).close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "//"])
def test_the_base_url_may_end_as_openai_users_write_it(engine: FakeEngine, suffix: str) -> None:
    """The same path comes out."""
    assert sent(engine, engine.url + suffix).path == "/v1/completions"


@pytest.mark.parametrize("prefix", ["/engines/a", "/engines/a/", "/engines/a/v1", "/a/v1/"])
def test_another_path_prefix_is_kept(engine: FakeEngine, prefix: str) -> None:
    """Engines behind a gateway have one."""
    with VllmHttpAdapter(engine.url + prefix) as adapter:
        *_, last = adapter.submit(TaskRequest(prompt="Hello"))
        adapter.health()

    kept = prefix.rstrip("/").removesuffix("/v1")
    assert isinstance(last, Error)
    assert last.error.code == "UPSTREAM_NOT_FOUND"
    paths = {request.path for request in engine.requests}
    assert {f"{kept}/v1/completions", f"{kept}/health"} <= paths
    assert all(path.startswith(f"{kept}/") for path in paths)


# Numbers.


@pytest.mark.parametrize("field", ["max_concurrency", "queue_size", "max_event_bytes"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "5", None])
def test_counts_are_whole_and_positive(field: str, value: Any) -> None:
    """The field and its value are named."""
    said = refusal(**{field: value})

    assert said.startswith(field)
    assert repr(value) in said


@pytest.mark.parametrize("value", [-1, True, 1.5, "5", None])
def test_max_pending_may_be_zero(value: Any) -> None:
    """Then nothing waits; less is refused."""
    VllmHttpAdapter(URL, max_pending=0).close()

    assert refusal(max_pending=value).startswith("max_pending")


def test_counts_of_one_work(engine: FakeEngine) -> None:
    """The least that is allowed still carries a whole answer."""
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0, queue_size=1) as adapter:
        events = [*adapter.submit(TaskRequest(prompt="Hello", max_tokens=20))]

    assert sum(isinstance(event, Token) for event in events) == 20


# Headers and the key.


@pytest.mark.parametrize("key", [f"{HUSH}\r\nX-Evil: 1", f"{HUSH}\n", f"{HUSH}\0", f"{HUSH}é"])
def test_a_bad_key_is_refused_unseen(key: str) -> None:
    """It is named, but never shown."""
    said = refusal(api_key=key)

    assert said.startswith("api_key")
    assert HUSH not in said


@pytest.mark.parametrize("key", [5, b"key", ["key"]])
def test_a_key_is_text(key: Any) -> None:
    """Anything else is refused."""
    assert refusal(api_key=key).startswith("api_key")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": f"{HUSH}\r\nX-Evil: 1"},
        {"X-A": f"{HUSH}\n"},
        {"X-A": f" {HUSH}"},
        {"X-A": f"{HUSH}\0"},
        {"X-A": f"{HUSH}\u20ac"},
        {"X A": HUSH},
        {"": HUSH},
        {"X-A:": HUSH},
        {"X-A\r\nX-Evil": HUSH},
        {"X-A": 5},
        {"X-A": None},
        {"X-A": HUSH.encode()},
        {5: HUSH},
        HUSH,
        [HUSH],
    ],
    ids=lambda headers: repr(headers).replace(HUSH, "..."),
)
def test_bad_headers_are_refused_unseen(headers: Any) -> None:
    """The argument is named; a value may be a secret."""
    said = refusal(headers=headers)

    assert said.startswith("headers")
    assert HUSH not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "Content-Type", "Transfer-Encoding", "accept", "Accept-Encoding"),
        *("X-Request-Id", "X-Correlation-Id"),
    ],
)
def test_the_adapter_s_own_headers_stay_its_own(engine: FakeEngine, name: str) -> None:
    """Refused, or sent once with the adapter's value: never two of them on the wire."""
    try:
        request = sent(engine, engine.url, headers={name: "evil"})
    except InvalidRequest:
        return

    assert len(request.headers_named(name)) <= 1
    assert request.header(name) != "evil"


def test_own_headers_go_out_with_every_request(engine: FakeEngine) -> None:
    """Health checks pass the same gateway."""
    with VllmHttpAdapter(engine.url, headers={"X-Tenant": "t1"}) as adapter:
        assert adapter.health().state is HealthState.HEALTHY
        adapter.submit(TaskRequest(prompt="Hello", max_tokens=1)).result(10)

    assert {"t1"} == {request.header("x-tenant") for request in engine.requests}


def test_later_changes_to_the_headers_do_nothing(engine: FakeEngine) -> None:
    """They are read once."""
    headers = {"X-Tenant": "t1"}
    with VllmHttpAdapter(engine.url, headers=headers) as adapter:
        headers["X-Tenant"] = "t2\r\nX-Evil: 1"
        adapter.submit(TaskRequest(prompt="Hello", max_tokens=1)).result(10)

    assert {"t1"} == {request.header("x-tenant") for request in engine.requests}


def test_one_authorization_header(engine: FakeEngine) -> None:
    """The bearer, exactly once, with every request; upstream's client sent it twice."""
    with VllmHttpAdapter(engine.url, api_key="k-123") as adapter:
        adapter.health()
        adapter.submit(TaskRequest(prompt="Hello", max_tokens=1)).result(10)

    found = [request.headers_named("authorization") for request in engine.requests]
    assert len(found) >= 3
    assert all(values == ["Bearer k-123"] for values in found)


@pytest.mark.parametrize("key", [None, ""])
def test_no_key_no_authorization(engine: FakeEngine, key: str | None) -> None:
    """An unset environment variable often arrives as an empty one."""
    assert sent(engine, engine.url, api_key=key).header("Authorization") is None


def test_netrc_does_not_override_the_key(
    engine: FakeEngine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests would take the file's password instead, unless the environment is shut out."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password other")
    monkeypatch.setenv("NETRC", str(netrc))

    request = sent(engine, engine.url, api_key="k-123")

    assert request.headers_named("Authorization") == ["Bearer k-123"]


def test_a_key_and_an_authorization_header_are_refused() -> None:
    """Which of the two would count?"""
    said = refusal(api_key=HUSH, headers={"authorization": f"Bearer {HUSH}2"})

    assert "api_key" in said
    assert "headers" in said
    assert HUSH not in said


@pytest.mark.parametrize("field", ["pool_id", "replica_id"])
@pytest.mark.parametrize("value", [5, "a\nb"])
def test_labels_are_plain_text(field: str, value: Any) -> None:
    """They go into logs."""
    assert refusal(**{field: value}).startswith(field)


def test_options_are_keyword_only() -> None:
    """A second positional argument would be anyone's guess."""
    with pytest.raises(TypeError):
        VllmHttpAdapter(URL, "key")  # type: ignore[call-arg]


def test_the_repr_names_the_engine() -> None:
    """So that a log line of the caller's tells which adapter it was."""
    with VllmHttpAdapter("http://127.0.0.1:8000/x", api_key=HUSH) as adapter:
        assert "http://127.0.0.1:8000/x" in repr(adapter)
        assert HUSH not in repr(adapter)
