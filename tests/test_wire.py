"""What goes over the wire, and by which way."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import support
from peers import Peer, read_head
from support import ONCE, SOON, a_task, answer, failure, posts, sent

from vllm_http import EngineUnavailable, InvalidRequest, Timeouts, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Headers, Status


engine, adapter = support.engine, support.adapter


def closed_port() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_request_asks_for_nothing_odd(engine: FakeEngine) -> None:
    """One bearer, JSON, no compression, no cookie."""
    with VllmHttpAdapter(engine.url, api_key="secret") as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    (post,) = posts(engine)
    assert post.headers_named("Authorization") == ["Bearer secret"]
    assert post.header("Content-Type") == "application/json"
    assert (post.header("Accept-Encoding") or "identity") == "identity"
    assert post.header("Cookie") is None


def test_default_body(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A task is sent with stream options and nothing that it does not hold."""
    task = a_task(temperature=0.7, seed=42)
    assert adapter.submit(task).result(timeout=SOON).error is None

    assert posts(engine)[0].json == {
        "model": "fake-model",
        "prompt": "Say it",
        "max_tokens": 5,
        "temperature": 0.7,
        "seed": 42,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_large_request_may_take_its_time() -> None:
    """The connect timeout is over once the connection stands, however long the writing takes."""
    size, written = 12_000_000, []

    def read_late(sock: socket.socket) -> None:
        data = read_head(sock)
        if not data.startswith(b"POST"):
            return  # the version
        threading.Event().wait(0.6)
        left = size - len(data)
        while left > 0 and (piece := sock.recv(2**20)):
            left -= len(piece)
        written.append(left <= 0)
        sock.sendall(b"HTTP/1.1 418 All read\r\ncontent-length: 0\r\n\r\n")

    timeouts = Timeouts(connect=0.2)
    with (
        Peer(read_late, receive_buffer=65536) as peer,
        VllmHttpAdapter(peer.url(), timeouts=timeouts, retry=ONCE) as adapter,
    ):
        error, _ = failure(adapter.submit(a_task(prompt="x" * size)))

    assert (error.status, written) == (418, [True])


def test_cookies_are_not_kept(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A cookie that one answer sets does not go out with the next task."""
    engine.script(Headers(headers={"set-cookie": "user=other; Path=/"}), *answer("a"))
    for _ in range(2):
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    assert [post.header("Cookie") for post in posts(engine)] == [None, None]


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .netrc with a password for this host."""
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login someone password netrc-secret\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("trust_env", [False, True])
def test_netrc_never_replaces_the_key(engine: FakeEngine, trust_env: bool) -> None:
    """The explicit key is what is sent, whatever .netrc says."""
    with VllmHttpAdapter(engine.url, api_key="k", trust_env=trust_env) as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    assert posts(engine)[0].headers_named("Authorization") == ["Bearer k"]


@pytest.mark.usefixtures("netrc")
def test_netrc_is_not_read(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Without a key and without trust_env, no Authorization is sent."""
    assert adapter.submit(a_task()).result(timeout=SOON).error is None

    assert posts(engine)[0].headers_named("Authorization") == []


def test_environments_proxy_is_ignored(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY has no effect unless the environment is trusted."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_port())
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).error is None
    with VllmHttpAdapter(engine.url, retry=ONCE, trust_env=True) as adapter:
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, EngineUnavailable)
    assert sent(engine) == 1


def test_explicit_proxy(engine: FakeEngine) -> None:
    """A proxy that is given gets the request, with the engine's whole URL."""
    proxies = {"http": engine.url}
    with VllmHttpAdapter("http://vllm.invalid:8000", proxies=proxies, retry=ONCE) as adapter:
        list(adapter.submit(a_task()))

    paths = {request.path for request in engine.requests if request.method == "POST"}
    assert paths == {"http://vllm.invalid:8000/v1/completions"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(
    engine: FakeEngine, adapter: VllmHttpAdapter, status: int
) -> None:
    """A redirect is an error that names its target, and nothing is sent there."""
    target = f"{engine.url}/elsewhere"
    engine.script(Status(status, headers={"location": target}))

    error, seen = failure(adapter.submit(a_task()))

    assert seen == ["error"]
    assert isinstance(error, EngineUnavailable)
    assert (error.status, error.retriable) == (status, False)
    assert target in error.message
    assert sent(engine) == 1
    assert not [request for request in engine.requests if request.path == "/elsewhere"]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_base_url_as_people_write_it(engine: FakeEngine, suffix: str) -> None:
    """A trailing slash or /v1 makes no difference."""
    with VllmHttpAdapter(engine.url + suffix) as adapter:
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    assert posts(engine)[0].path == "/v1/completions"


def test_other_prefix_is_kept(engine: FakeEngine) -> None:
    """A path before /v1, such as a gateway's, goes out with the request."""
    with VllmHttpAdapter(engine.url + "/gate/v1", retry=ONCE) as adapter:
        failure(adapter.submit(a_task()))

    assert "/gate/v1/completions" in {request.path for request in engine.requests}


def test_credentials_in_the_url_are_refused() -> None:
    """A password in the base URL would end up in logs."""
    with pytest.raises(InvalidRequest) as caught:
        VllmHttpAdapter("http://user:hunter2@127.0.0.1:1")

    assert "hunter2" not in str(caught.value)
