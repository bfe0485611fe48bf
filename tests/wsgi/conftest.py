"""A server that serves all tests of a module which only talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wsgi.servers import KINDS, STOP, Served, serving, stop


@pytest.fixture(scope="module", params=KINDS, ids=str)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Each server in turn; the adapter in it is never closed, and that keeps no worker."""
    with serving(request.param, tmp_path_factory.mktemp("server")) as served:
        yield served

        assert stop(served.process) < STOP
