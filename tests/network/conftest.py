"""Networks for the tests in this folder, and the table of what callers saw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from network.net import Network
from network.report import REPORT, Report


@pytest.fixture
def network() -> Iterator[Network]:
    """A network in which all is well, with an engine."""
    with Network() as network:
        yield network


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    """What was found so far; a test adds its own."""
    return pytestconfig.stash.setdefault(REPORT, Report())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print it: the condition, what the caller sees, after how long, and how it was made."""
    report = config.stash.get(REPORT, Report())
    if report.lines:
        terminalreporter.section("network")
        for line in report.lines:
            terminalreporter.write_line(line)
