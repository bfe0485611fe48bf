"""A pytest plugin: a fake vLLM, and an adapter on it, for each test that asks for them.

pytest loads it in every run of an environment that has vllm_http, before pytest-cov begins to
measure: measure this package itself with ``coverage run -m pytest``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vllm_http import VllmHttpAdapter

from ._engine import FakeEngine


@pytest.fixture
def vllm_engine() -> Iterator[FakeEngine]:
    """A `vllm_http.testing.FakeEngine` that listens, and is closed after the test."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def vllm_adapter(vllm_engine: FakeEngine) -> Iterator[VllmHttpAdapter]:
    """A `vllm_http.VllmHttpAdapter` on `vllm_engine`, with its defaults; closed after the test."""
    with VllmHttpAdapter(vllm_engine.url) as adapter:
        yield adapter
