"""A real vLLM server for the tests: one for as many as possible, since a start takes half a minute.

A pytest plugin which run.py brings along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllm_http import Timeouts, VllmHttpAdapter

from .recipe import prepare
from .server import Server, free_port, serving


# What vLLM does or tells only when asked; none of it changes an answer that does not ask.
FLAGS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
FLAGS += ["--enable-per-request-metrics", "--enable-prompt-tokens-details"]

MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def living_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Server]]:
    """Return the server that runs; start one, if none does or a test has killed it."""
    installation = prepare()
    servers: list[Server] = []

    with contextlib.ExitStack() as stack:

        def living() -> Server:
            if not servers or servers[-1].process.poll() is not None:
                stack.close()  # what is left of the dead one
                log: Path = tmp_path_factory.mktemp("vllm") / "server.log"
                server = serving(installation, free_port(), FLAGS, log)
                servers.append(stack.enter_context(server))
            return servers[-1]

        yield living


@pytest.fixture(scope="module")
def vllm(living_server: Callable[[], Server]) -> Server:
    """Return a real vLLM: so a test that kills it has to be the last one of its module."""
    return living_server()


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """Return an adapter for that server, which lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0)) as adapter:
        yield adapter


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what takes a line for the end of pytest's output: a number worth knowing."""
    return request.config.stash.setdefault(MEASURED, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was measured."""
    for line in config.stash.get(MEASURED, []):
        terminalreporter.write_line(f"measured: {line}")
