"""An engine, and a connection to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testing.raw_client import RawClient

from vllm_http.testing import FakeEngine


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[RawClient]:
    """A connection to the engine."""
    with RawClient(engine) as client:
        yield client
