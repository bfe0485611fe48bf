"""Run an example with all that it needs around it: a Redis, a Celery worker, an engine.

    pip install 'vllm-http[celery,redis]'
    python examples/with_celery.py examples/flask_chat/app.py

The worker runs the tasks.py beside the script. A Redis and an engine that you have are taken from
REDIS_URL and VLLM_URL; otherwise `redis-server` is started (Debian: apt install redis-server), and
an embedded engine whose words mean nothing. All of it ends with the script.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from vllm_http.testing import FakeEngine


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

GRACE = 10.0
"""Seconds in which a process may end by itself: a worker finishes what it has begun."""


def main() -> int:
    """Start what is missing, run the script, and return its exit code."""
    if not sys.argv[1:]:
        sys.exit(__doc__)
    script = Path(sys.argv[1])
    stops: list[int] = []
    for number in STOP_SIGNALS:
        # An exception here would lose a process that has just begun, so it is only written down.
        signal.signal(number, lambda number, frame: stops.append(number))
    with ExitStack() as around:
        if "REDIS_URL" not in os.environ:
            os.environ["REDIS_URL"] = around.enter_context(own_redis())
        if "VLLM_URL" not in os.environ:
            print(
                "no VLLM_URL: an embedded engine answers, its words mean nothing", file=sys.stderr
            )
            os.environ["VLLM_URL"] = around.enter_context(FakeEngine(token_delay=0.05)).url
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker"]
        command += ["--pool=threads", "--concurrency=16", "--loglevel=WARNING"]
        worker = around.enter_context(running(command, sys.stderr, cwd=script.parent))
        program = around.enter_context(running([sys.executable, *sys.argv[1:]], sys.stdout))
        while program.poll() is None:
            if stops:
                return 128 + stops[0]
            if worker.poll() is not None:
                sys.exit("the worker has ended, and the script would wait for ever")
            time.sleep(0.1)
        return program.returncode


@contextmanager
def own_redis() -> Iterator[str]:
    """A Redis that keeps nothing, and its URL."""
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is missing: install it, or say where one is with REDIS_URL")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--save", "", "--loglevel", "warning", "--logfile", os.devnull]
    with tempfile.TemporaryDirectory() as folder, running(command, sys.stderr, cwd=Path(folder)):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running(
    command: list[str], stdout: TextIO, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards; ctrl-C reaches it through us alone, in good order."""
    process = subprocess.Popen(command, stdout=stdout, cwd=cwd, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
