"""No frame of an error that reaches a caller holds the key, the proxy's password or the prompt."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from frames import shown_by
from peers import Peer, read_head

from vllm_http import (
    AdapterRegistry,
    AnswerInfo,
    InvalidRequest,
    RetryPolicy,
    TaskRequest,
    Tokenized,
    Unknown,
    VllmHttpAdapter,
    WorkerError,
    event_from_dict,
    event_from_json,
    image_part,
)
from vllm_http._request import encode
from vllm_http.testing import FakeEngine


KEY, HEADER, PASSWORD = "k3y-s3cr3t-0123", "h3ad3r-s3cr3t-89ab", "pr0xy-s3cr3t-4567"
PROMPT = "whispered-prompt-cdef"
SECRETS = (KEY, HEADER, PASSWORD, PROMPT)
CHAT = [{"role": "user", "content": PROMPT}]

Call = Callable[[VllmHttpAdapter], object]


def submitted(adapter: VllmHttpAdapter, **fields: Any) -> object:
    """The result of a task."""
    return adapter.submit(TaskRequest(prompt=PROMPT, **fields)).result()


def mapped(adapter: VllmHttpAdapter, **fields: Any) -> None:
    """The error of the only task of a map, as its user would raise it."""
    (completion,) = adapter.map([TaskRequest(prompt=PROMPT, **fields)])
    assert completion.error is not None
    raise completion.error


def streamed(adapter: VllmHttpAdapter, **fields: Any) -> None:
    """The same of `stream_many`."""
    *_, (_, last) = adapter.stream_many([TaskRequest(prompt=PROMPT, **fields)])
    raise last.error  # type: ignore[union-attr]


CALLS: dict[str, Call] = {
    "submit": submitted,
    "text": lambda adapter: list(adapter.submit(TaskRequest(messages=CHAT)).text()),
    "map": mapped,
    "stream_many": streamed,
    "embed": lambda adapter: adapter.embed(PROMPT),
    "embed with more": lambda adapter: adapter.embed("x", extra_body={"a": PROMPT}),
    "score": lambda adapter: adapter.score(PROMPT, [PROMPT]),
    "rerank": lambda adapter: adapter.rerank(PROMPT, [PROMPT]),
    "tokenize": lambda adapter: adapter.tokenize(PROMPT),
    "tokenize a chat": lambda adapter: adapter.tokenize(messages=CHAT),
    "detokenize": lambda adapter: adapter.detokenize([1, 2, 3]),
    "models": lambda adapter: adapter.models(),
    "props": lambda adapter: adapter.props(),
    "metrics": lambda adapter: adapter.metrics(),
}


def answers(status: bytes, body: bytes) -> Peer:
    """A server that has one answer to everything."""

    def talk(sock: Any) -> None:
        head, _, rest = read_head(sock).partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        missing = int(length[1]) - len(rest) if length else 0
        while missing > 0:
            missing -= len(sock.recv(65536))
        size = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        kind = b"content-type: application/json\r\n"
        sock.sendall(b"HTTP/1.1 %b\r\n" % status + kind + size + body)

    return Peer(talk)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


def adapter_on(url: str) -> VllmHttpAdapter:
    """An adapter that has all the secrets; its proxy is never asked."""
    return VllmHttpAdapter(
        url,
        api_key=KEY,
        headers={"X-Gateway-Token": HEADER},
        proxies={"https": f"http://user:{PASSWORD}@127.0.0.1:1"},
        retry=RetryPolicy(attempts=2, base=0.0, cap=0.0),
    )


def assert_tells_nothing(call: Callable[[], object]) -> WorkerError:
    """Make a call that fails, and look at all that its error leads to."""
    try:
        call()
    except WorkerError as failure:
        error = failure
    else:
        pytest.fail("it did not fail")
    found = shown_by(error)
    lines = [line for line in found.splitlines() if any(secret in line for secret in SECRETS)]
    assert lines == []
    return error


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("status", [b"400 Bad Request", b"503 Service Unavailable"])
def test_a_refused_call(name: str, status: bytes) -> None:
    """The engine says no, to all of it."""
    with (
        answers(status, b'{"error": {"message": "no"}}') as peer,
        adapter_on(peer.url()) as adapter,
    ):
        assert_tells_nothing(lambda: CALLS[name](adapter))


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_that_cannot_be_read(name: str) -> None:
    """200, and then something else."""
    with answers(b"200 OK", b"<html>") as peer, adapter_on(peer.url()) as adapter:
        assert_tells_nothing(lambda: CALLS[name](adapter))


@pytest.mark.parametrize("name", CALLS)
def test_nobody_listens(name: str) -> None:
    """All attempts are refused, and each has left its failure."""
    with adapter_on("http://127.0.0.1:1") as adapter:
        assert_tells_nothing(lambda: CALLS[name](adapter))


@pytest.mark.parametrize("name", CALLS)
def test_a_proxy_refuses(name: str) -> None:
    """The way leads through the proxy, with its password."""
    with adapter_on("https://127.0.0.1:2") as adapter:
        assert_tells_nothing(lambda: CALLS[name](adapter))


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_adapter(engine: FakeEngine, name: str) -> None:
    """Refused on the caller's own thread, where the arguments are."""
    adapter = adapter_on(engine.url)
    adapter.close()

    assert_tells_nothing(lambda: CALLS[name](adapter))


@pytest.mark.parametrize("name", CALLS)
def test_our_own_bug(engine: FakeEngine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it happened is kept for a report; what it happened with is not."""

    def bug(self: object, method: str, path: str, headers: dict[str, str]) -> object:
        secret = f"{headers} {KEY} {PROMPT}"
        raise ZeroDivisionError(len(secret))

    with adapter_on(engine.url) as adapter:
        monkeypatch.setattr("vllm_http._transport.Transport._request", bug)
        error = assert_tells_nothing(lambda: CALLS[name](adapter))

    assert isinstance(error, Unknown)
    assert isinstance(error.__cause__, ZeroDivisionError)
    places = [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]
    assert places[-1] == "bug"


WRONG: dict[str, Call] = {
    "submit": lambda adapter: submitted(adapter, n=0),
    "no JSON": lambda adapter: submitted(adapter, extra_body={"a": {PROMPT}}),
    "a prompt of the wrong type": lambda adapter: adapter.submit(
        TaskRequest(prompt=[PROMPT, 5])  # type: ignore[arg-type]
    ),
    "map": lambda adapter: mapped(adapter, n=0),
    "map, no JSON": lambda adapter: mapped(adapter, extra_body={"a": {PROMPT}}),
    "stream_many": lambda adapter: streamed(adapter, n=0),
    "embed": lambda adapter: adapter.embed([PROMPT, 5]),  # type: ignore[arg-type]
    "embed with more": lambda adapter: adapter.embed("x", extra_body={"a": {PROMPT}}),
    "score": lambda adapter: adapter.score(PROMPT, [5]),  # type: ignore[list-item]
    "rerank": lambda adapter: adapter.rerank(PROMPT, [PROMPT], top_n=0),
    "tokenize": lambda adapter: adapter.tokenize(PROMPT, model=""),
    "detokenize": lambda adapter: adapter.detokenize([PROMPT]),  # type: ignore[list-item]
    "validate": lambda adapter: TaskRequest(prompt=PROMPT, n=0).validate(),
    "from_dict": lambda adapter: TaskRequest.from_dict({"prompt": PROMPT, "n": 0}),
    "from_json": lambda adapter: TaskRequest.from_json(f'{{"prompt": "{PROMPT}", "x": 1}}'),
    "no JSON at all": lambda adapter: TaskRequest.from_json(f'{{"prompt": "{PROMPT}"'),
    "an event": lambda adapter: event_from_dict({"type": "token", "text": PROMPT}),
    "an event's JSON": lambda adapter: event_from_json(f'{{"type": "token", "text": "{PROMPT}"}}'),
    "a picture": lambda adapter: image_part(PROMPT.encode()),
    "adapter": lambda adapter: adapter_on("ftp://127.0.0.1"),
    "adapter's headers": lambda adapter: VllmHttpAdapter(
        "http://h", api_key=KEY, headers={"Authorization": HEADER}
    ),
    "registry": lambda adapter: AdapterRegistry.from_env(
        {"ORCHD_VLLM_URL": "ftp://h"}, api_key=KEY
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument(engine: FakeEngine, name: str) -> None:
    """Refused before the wire."""
    with adapter_on(engine.url) as adapter:
        assert isinstance(assert_tells_nothing(lambda: WRONG[name](adapter)), InvalidRequest)


def test_a_misspelt_option() -> None:
    """Python's own TypeError shows no more than it would without us."""
    with pytest.raises(TypeError) as caught:
        VllmHttpAdapter("http://h", api_key=KEY, timeout=5)  # type: ignore[call-arg]

    assert KEY not in shown_by(caught.value)


def test_a_secret_is_in_no_repr() -> None:
    """Of what a frame elsewhere may hold: the way to the engine, a request, a task."""
    with adapter_on("https://127.0.0.1:2") as adapter:
        task = TaskRequest(prompt=PROMPT, cache_salt="s4lt-s3cr3t")
        transport = adapter._transport

        shown = f"{adapter!r} {transport._endpoint!r} {task!r} {transport.asked('/v1')!r}"
        shown += f"{encode(task, 'job')!r} {AnswerInfo(prompt_text=PROMPT)!r}"
        shown += f"{Tokenized([1], 1, token_strs=[PROMPT])!r}"

    assert not [secret for secret in (*SECRETS, "s4lt-s3cr3t") if secret in shown]
    assert "cache_salt" in shown
