"""What a worker does with what nobody foresaw."""

from __future__ import annotations

from typing import Any

import pytest
import support
from support import a_task, the_error

from vllm_http import Unknown, VllmHttpAdapter
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter


def broken(**arguments: Any) -> None:
    """What our own bug might do."""
    raise ZeroDivisionError("with a secret in its text")


def test_unforeseen_failure_is_an_error_like_others(
    adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends, the type is told and not the text, the cause is kept for a report."""
    with monkeypatch.context() as patch:
        patch.setattr("vllm_http._worker.Decoder", broken)
        error = the_error(adapter.submit(a_task(job_id="unlucky")))

    assert isinstance(error, Unknown)
    assert error.message == "unforeseen ZeroDivisionError in the worker"
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert error.__cause__.__traceback__ is not None
    assert (error.code, error.retriable, error.job_id) == ("INTERNAL", False, "unlucky")


def test_worker_survives_an_unforeseen_failure(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that waits behind it is served."""
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        with monkeypatch.context() as patch:
            patch.setattr("vllm_http._worker.Decoder", broken)
            the_error(adapter.submit(a_task(job_id="unlucky")))

        assert adapter.submit(a_task()).result().finish_reason == "length"
