"""Examples as processes, started as their texts say, and gone afterwards."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import wait_until


ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
START = 40.0  # Seconds; a worker on a busy machine is slow to wake.


def documented(page: str, start: str) -> list[str]:
    """The indented command in an example's text that begins so, without what the shell adds."""
    lines = re.findall(
        rf"^    ({re.escape(start)}.*)$", (EXAMPLES / page).read_text(), re.MULTILINE
    )
    assert len(lines) >= 1, f"{page} has no command {start!r}"
    return shlex.split(re.sub(r" \[.*?\]| > .*", "", lines[0]))


def on_port(command: list[str], port: int) -> list[str]:
    """The command with this port for the one that the text has."""
    return [re.sub(r"^(127\.0\.0\.1):\d+$", rf"\1:{port}", part) for part in command]


def environment(**variables: str) -> dict[str, str]:
    """As in a shell where the virtual environment is active; where things are is up to the test."""
    ours = ("VLLM_URL", "REDIS_URL", "PORT")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    path = f"{BIN}{os.pathsep}{inherited.get('PATH', '')}"
    return {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1", **variables}


@dataclass
class Program:
    """A process that runs, and what it has said so far."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def stdout(self) -> str:
        """So far."""
        return (self.folder / "stdout").read_bytes().decode()

    @property
    def stderr(self) -> str:
        """So far."""
        return (self.folder / "stderr").read_bytes().decode()

    def family(self) -> list[int]:
        """Its process id, and those of all that it has started."""
        return family(self.folder)

    def wait(self, timeout: float = START) -> int:
        """Its exit code, when it ends."""
        return self.process.wait(timeout)

    def wait_without(self, pids: Collection[int]) -> None:
        """Wait until these have ended, which it had started."""
        wait_until(lambda: not set(pids) & set(self.family()), START)

    def wait_serving(self, port: int) -> None:
        """Wait until somebody listens there."""

        def listening() -> bool:
            assert self.process.poll() is None, self.stderr
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listening, START)


@contextmanager
def running(command: list[str], folder: Path, **variables: str) -> Iterator[Program]:
    """A documented command at the top of the checkout; ctrl-C ends it and all that it started."""
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(**variables),
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield Program(process, folder)
        process.send_signal(signal.SIGINT)
        process.wait(START)
        wait_until(lambda: not family(folder))
    finally:
        for pid in family(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def family(folder: Path) -> list[int]:
    """The processes that a command has started, and itself: they share its stderr."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if os.readlink(process / "fd" / "2") == str(folder / "stderr"):
                found.append(int(process.name))
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need_program(name: str) -> str:
    """The path of a program; the test is skipped without it, and fails on CI."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI tests with it")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path
