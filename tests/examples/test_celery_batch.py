"""The batch, run as its text says: with a Redis and a worker that it starts by itself."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from examples.programs import BIN, START, documented, need_program, running
from support import answer
from wsgi.servers import need

from vllm_http.testing import FakeEngine, Stall, Status


COMMAND = documented("celery_batch/run.py", "python")


@pytest.fixture(autouse=True)
def _needs() -> None:
    for module in ("celery", "redis"):
        need(module)
    need_program("redis-server")


def test_embedded_engine(tmp_path: Path) -> None:
    """Each prompt has a line, in order; progress and a word on the engine are on stderr."""
    with running(COMMAND, tmp_path) as batch:
        code = batch.wait(START)
        lines = [json.loads(line) for line in batch.stdout.splitlines()]

        assert code == 0, batch.stderr
        assert [line["prompt"] for line in lines] == [f"The number {n} is" for n in range(1, 51)]
        assert {line["finish_reason"] for line in lines} == {"length"}
        assert "an embedded engine answers" in batch.stderr
        assert "\r50 of 50\n" in batch.stderr


def test_failed_ones_are_listed(engine: FakeEngine, tmp_path: Path) -> None:
    """One that fails stops nothing, and the exit code tells of it."""
    (tmp_path / "prompts").write_text("One\nTwo\nThree\n")
    for steps in (answer("Well"), [Status(400, {"error": {"message": "too hot"}})], answer("Well")):
        engine.script(*steps)
    command = [*COMMAND, str(tmp_path / "prompts")]
    with running(command, tmp_path, VLLM_URL=engine.url) as batch:
        code = batch.wait(START)
        lines = [json.loads(line) for line in batch.stdout.splitlines()]

        assert code == 1
        assert [line["prompt"] for line in lines] == ["One", "Two", "Three"]
        (failed,) = [line for line in lines if "error" in line]
        assert failed["error"] == "engine answered 400: too hot"
        assert f"\nfailed: {failed['prompt']!r}: engine answered 400: too hot\n" in batch.stderr


def test_says_what_is_missing(tmp_path: Path) -> None:
    """Without redis-server it says what to do."""
    with running([str(BIN / "python"), *COMMAND[1:]], tmp_path, PATH=str(tmp_path)) as batch:
        code = batch.wait()

        assert code == 1
        assert batch.stderr == (
            "redis-server is missing: install it, or say where one is with REDIS_URL\n"
        )


def test_worker_that_dies(engine: FakeEngine, tmp_path: Path) -> None:
    """Nobody waits for ever for a worker that has gone."""
    engine.script(Stall())
    with running(COMMAND, tmp_path, VLLM_URL=engine.url) as batch:
        engine.wait_for_requests(1, timeout=START, path="/v1/completions")
        worker = re.compile(rb"celery\0-A\0tasks")
        (pid,) = [pid for pid in batch.family() if worker.search(command_line(pid))]
        os.kill(pid, signal.SIGKILL)
        code = batch.wait()

        assert code == 1
        assert "the worker has ended, and the script would wait for ever" in batch.stderr


def command_line(pid: int) -> bytes:
    """Of a process that runs."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()
