"""The example in docs/celery.md, as it is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import redis
from relay.redis_server import RedisServer
from relay.workers import Worker
from support import answer

from vllm_http.testing import FakeEngine


PAGE = Path(__file__).parent.parent.parent / "docs" / "celery.md"


def example(name: str) -> str:
    """The fenced block under the comment that names it."""
    pattern = rf"^<!-- example: {name} -->\n```python\n(.*?)^```$"
    (block,) = re.findall(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def test_example(
    tmp_path: Path, redis_server: RedisServer, client: redis.Redis, engine: FakeEngine
) -> None:
    """A worker runs the one file, and the other prints the answer."""
    (tmp_path / "tasks.py").write_text(example("tasks"))
    (tmp_path / "follow.py").write_text(example("follow"))
    places = {"REDIS_URL": redis_server.url, "VLLM_URL": engine.url}
    engine.script(*answer("Hello", " world"))
    with Worker(tmp_path, "threads", 1, app="tasks", **places) as worker:
        worker.wait_ready()
        follow = subprocess.run(
            [sys.executable, "follow.py"],
            cwd=tmp_path,
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            timeout=40,
        )

    assert (follow.stdout, follow.stderr) == ("Hello world\n", "")
