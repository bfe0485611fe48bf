"""Secrets: in no repr, error, event, traceback, pickle or log, whatever the engine echoes."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Iterator

import pytest

from vllm_http import Error, RetryPolicy, TaskRequest, Timeouts, VllmHttpAdapter, WorkerError
from vllm_http.testing import ErrorEvent, FakeEngine, Headers, Raw, Status, Step


KEYS = ["s3cr3t-token-xyz", "abc+def/ghi==", "sk-proj-0123456789abcdef", "k3y!$&'()*", "abc123"]
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


def traces(error: WorkerError) -> str:
    """All the ways in which an error gets written down."""
    event = Error(error)
    written = [str(error), repr(error), json.dumps(error.to_dict(), ensure_ascii=False)]
    written += [repr(event), event.to_json(), repr(pickle.dumps(event.error))]
    written += traceback.format_exception(error)
    return "\n".join(written)


def fail(adapter: VllmHttpAdapter) -> WorkerError:
    """The error of a task."""
    *_, last = adapter.submit(TaskRequest(prompt="Hello"))
    assert isinstance(last, Error)
    return last.error


def echoes(key: str) -> dict[str, tuple[Step, ...]]:
    """The places where an engine, or a proxy before it, may repeat what it was sent."""
    headers = f"{{'Authorization': 'Bearer {key}'}}"
    body = json.dumps({"error": {"message": f"invalid key {key}", "type": key, "code": 401}})
    return {
        "message": (Status(401, body.encode(), [("Content-Type", "application/json")]),),
        "plain": (Status(400, f"Authorization: Bearer {key}".encode()),),
        "html": (Status(502, f"<html><pre>{headers}</pre></html>".encode()),),
        "detail": (Status(422, {"detail": [{"input": {"headers": [key]}}]}),),
        "redirect": (Status(307, b"", [("Location", f"http://elsewhere.invalid/?key={key}")]),),
        "in stream": (ErrorEvent(f"bad {headers}"),),
        "broken event": (Headers(), Raw(f"data: {{{key}\n\n".encode())),
        "no stream": (Status(200, f"hello {key}".encode()),),
    }


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", [*echoes("")])
def test_an_echoed_key_is_not_repeated(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture, key: str, place: str
) -> None:
    """The engine's text is shown with the key masked."""
    caplog.set_level(logging.DEBUG)
    engine.script(*echoes(key)[place])
    with VllmHttpAdapter(engine.url, api_key=key, retry=ONCE) as adapter:
        error = fail(adapter)

    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert key in str(engine.requests[-1].headers)
    assert key not in traces(error)
    assert key not in logged


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "Proxy-Authorization", "X-Token"])
def test_secrets_in_headers_are_secrets(engine: FakeEngine, name: str) -> None:
    """A gateway's key is no less one than the engine's."""
    secret = "gateway-s3cr3t-0123"
    engine.script(Status(403, {"error": {"message": f"denied: {secret}", "code": 403}}))
    with VllmHttpAdapter(engine.url, headers={name: secret}, retry=ONCE) as adapter:
        error = fail(adapter)
        assert secret not in repr(adapter)
        assert "denied" in error.message
        assert secret not in traces(error)


def test_a_key_cut_in_two_is_not_half_shown(engine: FakeEngine) -> None:
    """The bound on a message is applied to what was masked already."""
    key = "s3cr3t-0123456789abcdef0123456789abcdef"
    with VllmHttpAdapter(engine.url, api_key=key, retry=ONCE) as adapter:
        for filler in range(1900, 2100, 8):
            text = "." * filler + key
            engine.script(Status(400, {"error": {"message": text, "code": 400}}))
            message = fail(adapter).message
            assert "." * 1000 in message
            assert key[:8] not in message


def test_a_proxy_s_password_is_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """It stands in a URL, which is what errors like to show."""
    caplog.set_level(logging.DEBUG)
    proxies = {"http": "http://user:pr0xy-s3cr3t@127.0.0.1:1"}
    with VllmHttpAdapter(
        "http://engine.invalid", proxies=proxies, retry=ONCE, timeouts=Timeouts(total=10)
    ) as adapter:
        assert "pr0xy-s3cr3t" not in repr(adapter)
        assert "pr0xy-s3cr3t" not in traces(fail(adapter))
        assert "pr0xy-s3cr3t" not in adapter.health().message

    assert "pr0xy-s3cr3t" not in caplog.text


@pytest.mark.parametrize("key", KEYS)
def test_the_adapter_shows_no_key(key: str) -> None:
    """Neither its repr nor what a debugger prints of its attributes' reprs."""
    with VllmHttpAdapter("http://127.0.0.1:1", api_key=key) as adapter:
        assert key not in f"{adapter} {adapter!r}"


def test_health_and_props_mask_the_key(engine: FakeEngine) -> None:
    """What they say goes onto dashboards."""
    key = KEYS[0]
    engine.override("/v1/models", 401, {"error": f"bad key {key}"})
    with VllmHttpAdapter(engine.url, api_key=key) as adapter:
        assert key not in repr(adapter.health())
        with pytest.raises(WorkerError) as caught:
            adapter.props()

    assert key not in traces(caught.value)


SAID = "max_tokens must be at least 1; x-max is ma"


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "x"},
        {"api_key": "ma"},
        {"headers": {"X-Auth-Token": "max"}},
        {"headers": {"X-Api-Key": "must-"}},
        {"headers": {"Authorization": "Basic eDptYXg="}},  # x:max
        {"proxies": {"https": "http://x:max@127.0.0.1:9"}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_short_secrets_leave_messages_readable(
    engine: FakeEngine, options: dict[str, object]
) -> None:
    """A test server's key is no reason to riddle what vLLM says of an argument."""
    engine.script(Status(400, {"error": {"message": SAID, "code": 400}}))
    with VllmHttpAdapter(engine.url, retry=ONCE, **options) as adapter:  # type: ignore[arg-type]
        message = fail(adapter).message

    said = SAID if options != {"api_key": "ma"} else SAID[:-2] + "****"
    assert message.startswith(f"engine answered 400: {said}")
