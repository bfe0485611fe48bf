"""A pytest plugin: a fake vLLM, and an adapter on it, for each test that asks for them.

pytest loads it in every run of an environment that has vllm_http, so it stands outside of that
package and imports nothing before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from vllm_http import VllmHttpAdapter
    from vllm_http.testing import FakeEngine


@pytest.fixture
def vllm_engine() -> Iterator[FakeEngine]:
    """A `vllm_http.testing.FakeEngine` that listens, and is closed after the test."""
    from vllm_http.testing import FakeEngine

    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def vllm_adapter(vllm_engine: FakeEngine) -> Iterator[VllmHttpAdapter]:
    """A `vllm_http.VllmHttpAdapter` on `vllm_engine`, with its defaults; closed after the test."""
    from vllm_http import VllmHttpAdapter

    with VllmHttpAdapter(vllm_engine.url) as adapter:
        yield adapter
