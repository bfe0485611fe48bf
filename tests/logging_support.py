"""What the tests of the log share: an adapter with names and a key, and how to play a task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vllm_http import RetryPolicy, TaskRequest, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Step


KEY = "s3cr3t-token-xyz"
PROMPT = "whispered-prompt"

Play = Callable[..., TokenStream]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def adapter(engine: FakeEngine) -> Iterator[VllmHttpAdapter]:
    """An adapter with names and a key, that runs one task at a time."""
    with VllmHttpAdapter(
        engine.url,
        api_key=KEY,
        retry=RetryPolicy(attempts=1),
        max_concurrency=1,
        pool_id="p",
        replica_id="r7",
    ) as adapter:
        yield adapter


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of all libraries, at its most talkative."""
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture
def play(engine: FakeEngine, adapter: VllmHttpAdapter) -> Play:
    """Submit a task that the engine answers with these steps."""

    def play(*steps: Step, **fields: Any) -> TokenStream:
        engine.script(*steps)
        stream = adapter.submit(TaskRequest(**{"prompt": PROMPT, "job_id": "j1"} | fields))
        path = "/v1/chat/completions" if "messages" in fields else "/v1/completions"
        engine.wait_for_requests(1, path=path)
        return stream

    return play
