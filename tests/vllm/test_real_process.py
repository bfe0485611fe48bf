"""The process control itself, with a shell script in the place of vLLM."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from . import server
from .recipe import Installation


Script = Callable[[str], Installation]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return what makes an installation whose vLLM is the given lines of shell."""

    def install(lines: str) -> Installation:
        python = tmp_path / "bin" / "python"
        python.parent.mkdir()
        python.write_text(f"#!/bin/sh\n{lines}\n")
        python.chmod(0o755)
        return Installation(venv=tmp_path, model=tmp_path)

    return install


def test_a_server_that_dies_at_once_shows_its_log(script: Script, tmp_path: Path) -> None:
    """Nobody waits for a server that cannot come, and its last words are in the message."""
    installation = script("echo no memory >&2; exit 3")

    with (
        pytest.raises(server.ServerError, match=r"code 3 before it was ready\n  no memory"),
        server.serving(installation, server.free_port(), log=tmp_path / "log"),
    ):
        pass


def test_a_group_that_ignores_sigterm_is_killed(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop is bounded, and takes the children along even if they will not hear."""
    monkeypatch.setattr(server, "GRACE", 0.2)
    monkeypatch.setattr(server, "LINGER", 0.2)
    deaf = "trap '' TERM; sleep 60 & echo ready; wait"
    stubborn = server.Server(script(deaf), server.free_port(), log=tmp_path / "log")
    while "ready" not in stubborn.log_lines():
        assert stubborn.process.poll() is None

    stubborn.stop()

    assert stubborn.members() == {}


def test_a_taken_port_is_refused() -> None:
    """A server that could not listen is not even started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(server.ServerError, match=f"port {port}: Address already in use"):
            server.free_port(port)
