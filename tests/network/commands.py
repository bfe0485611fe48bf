"""The system's own tools, which the network is made with."""

from __future__ import annotations

import shutil
import subprocess

import pytest


_REFUSALS = (
    *("there is no command", "not permitted", "denied", "Read-only"),
    *("not supported", "No such file", "Unknown device type"),  # the kernel was built without it
)


def try_to(*command: str, given: str = "") -> str | None:
    """Run a command; None, or what was wrong."""
    if shutil.which(command[0]) is None:
        return f"there is no command {command[0]!r}"
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=20)
    if done.returncode == 0:
        return None
    return f"{' '.join(command)}: {done.stderr.strip()}\n{given}".strip()


def do(*command: str, given: str = "") -> None:
    """Run a command; what the system lacks or does not permit skips the test, and says so."""
    wrong = try_to(*command, given=given)
    if wrong is not None and any(refusal in wrong for refusal in _REFUSALS):
        pytest.skip(wrong)
    assert wrong is None, wrong


def listed(*command: str) -> list[str]:
    """The lines that a command prints; none where there is no such command."""
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return done.stdout.splitlines()
