"""The engine of the soak: it reads from each prompt which plan to play."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from soak.plan import plan

from vllm_http.testing import FakeEngine, Stage


AT_ONCE = 1024
"""Requests that may come at once."""


class AsAsked:
    """A step that plays the plan whose seed and number are the prompt's token ids."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._attempts: Counter[int] = Counter()

    def play(self, stage: Stage) -> None:
        self._engine.script(self)  # for a request to come
        seed, number = stage.generation.prompts[0].ids
        asked = plan(seed, number)
        attempt = 0
        if len(asked.fault.scripts) > 1:
            with self._lock:
                attempt = self._attempts[number]
                self._attempts[number] += 1
        for step in asked.script(attempt):
            step.play(stage)


@contextlib.contextmanager
def planned_engine() -> Iterator[FakeEngine]:
    """An engine in this process."""
    with FakeEngine() as engine:
        step = AsAsked(engine)
        for _ in range(AT_ONCE):
            engine.script(step)
        yield engine


@contextlib.contextmanager
def engine_process() -> Iterator[str]:
    """The URL of an engine in a process of its own, which ends with the block or with us."""
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # ctrl-C is for us
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    with planned_engine() as engine:
        print(engine.url, flush=True)
        sys.stdin.read()
