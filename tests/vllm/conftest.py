"""Leave a real vLLM out of an ordinary test run: it takes minutes, and gigabytes once."""

from __future__ import annotations

from pathlib import Path

import pytest


def started_by_run_py(config: pytest.Config) -> bool:
    """Tell whether run.py is in charge: it alone brings the plugin with the server."""
    return config.pluginmanager.has_plugin("vllm.fixtures")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect nothing in this folder, unless run.py asked for it."""
    return None if started_by_run_py(config) else True


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    if not started_by_run_py(config):
        terminalreporter.write_line("not run: tests/vllm, against a real vLLM (tox -e vllm)")
