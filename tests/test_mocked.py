"""An adapter in an application's own tests, where `responses` stands in for the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import responses
from support import COMPLETIONS, QUICKLY, SOON, a_task, failure, kinds

from vllm_http import End, HealthState, InvalidRequest, VllmHttpAdapter


URL = "http://vllm.invalid:8000"
EVENTS = """\
data: {"choices": [{"index": 0, "text": "Hello", "finish_reason": null}]}

data: {"choices": [{"index": 0, "text": " you", "finish_reason": "stop"}]}

data: {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}}

data: [DONE]

"""


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    """An engine that tells its version, its health and its model."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get(f"{URL}/version", json={"version": "0.32.0"})
        mock.get(f"{URL}/health")
        mock.get(f"{URL}/v1/models", json={"data": [{"id": "fake-model"}]})
        yield mock


@pytest.fixture
def adapter(mock: responses.RequestsMock) -> Iterator[VllmHttpAdapter]:
    """An adapter whose requests the mock answers."""
    with VllmHttpAdapter(URL, retry=QUICKLY) as adapter:
        yield adapter


def answers(mock: responses.RequestsMock) -> None:
    """Have the next completions request answered in full."""
    mock.post(URL + COMPLETIONS, body=EVENTS, content_type="text/event-stream")


def test_mocked_stream(mock: responses.RequestsMock, adapter: VllmHttpAdapter) -> None:
    """A mocked body is streamed like a real one."""
    answers(mock)

    *events, end = adapter.submit(a_task())

    assert kinds(events) == ["started", "token", "token"]
    assert isinstance(end, End)
    assert (end.finish_reason, end.metrics.tokens_generated) == ("stop", 2)


def test_mocked_refusal_then_success(
    mock: responses.RequestsMock, adapter: VllmHttpAdapter
) -> None:
    """A mocked 503 is tried again."""
    mock.post(URL + COMPLETIONS, status=503)
    answers(mock)

    completion = adapter.submit(a_task()).result(timeout=SOON)

    assert completion.text == "Hello you"
    assert completion.metrics is not None
    assert completion.metrics.attempts == 2


def test_mocked_refusal(mock: responses.RequestsMock, adapter: VllmHttpAdapter) -> None:
    """A mocked 404 is final, with the mock's words."""
    mock.post(URL + COMPLETIONS, status=404, json={"error": {"message": "no such model"}})

    error, seen = failure(adapter.submit(a_task()))

    assert seen == ["error"]
    assert isinstance(error, InvalidRequest)
    assert error.status == 404
    assert "no such model" in error.message


def test_mocked_health(adapter: VllmHttpAdapter) -> None:
    """The small calls are mocked the same way."""
    assert adapter.health().state is HealthState.HEALTHY
    assert adapter.engine_version() == "0.32.0"
