"""The command line, in this process and as one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import pytest

from vllm_http.cli import main


COMMAND = [sys.executable, "-m", "vllm_http"]

PATIENCE = 20.0
"""Seconds for what takes well under one on an idle machine."""


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def in_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in this process, with an environment that says nothing."""
    monkeypatch.delenv("ORCHD_VLLM_URL", raising=False)
    monkeypatch.delenv("VLLM_API_KEY", raising=False)

    def call(*arguments: str) -> Outcome:
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return call


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without what the command reads, and with `more`."""
    ours = ("ORCHD_VLLM_URL", "VLLM_API_KEY", "PYTHONIOENCODING")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, **more}


def finished(
    *command: str, stdin: bytes = b"", env: dict[str, str] | None = None, stdout: Any = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command line to its end."""
    return subprocess.run(
        command,
        input=stdin,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env or environment(),
        timeout=PATIENCE,
    )


@contextmanager
def started(*command: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command line, and end it at the latest with the block. It heeds ctrl-C.

    Children inherit a SIGINT that is ignored, as it is for tests that run in the background.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(),
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()


def stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """What the process prints, as it comes."""
    assert process.stdout is not None
    return process.stdout


def ctrl_c(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Interrupt the process; its exit code and what it still says on stdout and stderr."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err
