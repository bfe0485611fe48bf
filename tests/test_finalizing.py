"""What a `__del__` does while the interpreter shuts down: threads stand still then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import support
from support import SOON

from vllm_http.testing import FakeEngine, Headers, Stall


engine = support.engine

PROGRAM = """
import sys
from vllm_http import AdapterClosed, TaskRequest, VllmHttpAdapter

class Late:
    def __init__(self):
        self.adapter = VllmHttpAdapter(sys.argv[1])
        self.task = TaskRequest(prompt="x", model="fake-model")
        {before}

    def __del__(self, AdapterClosed=AdapterClosed, print=print, float=float):
        try:
            {late}
        except AdapterClosed as error:
            print("refused:", error)

sys.modules["late"] = Late()  # goes with the modules, after all else
"""

LATE = {
    "first submit": ("", "self.adapter.submit(self.task)"),
    "another submit": ("self.adapter.submit(self.task)", "self.adapter.submit(self.task)"),
    "result": (
        "self.stream = self.adapter.submit(self.task); next(self.stream)",
        "self.stream.result()",
    ),
    "map": ("self.adapter.submit(self.task)", "raise next(self.adapter.map([self.task])).error"),
    "small call": ("", "self.adapter.models()"),
}


@pytest.mark.parametrize("name", LATE)
def test_late_call_is_refused(engine: FakeEngine, name: str) -> None:
    """It would wait for ever, and the exit with it."""
    before, late = LATE[name]
    for _ in range(2):
        engine.script(Headers(), Stall())

    done = run(engine, before, late)

    assert (done.stdout, done.stderr) == ("refused: the interpreter is shutting down\n", "")
    assert done.returncode == 0


@pytest.mark.parametrize("late", ["self.adapter.close()", "self.adapter.close(float('inf'))"])
def test_late_close_does_not_wait(engine: FakeEngine, late: str) -> None:
    """Nobody would come to an end."""
    engine.script(Headers(), Stall())

    done = run(engine, "self.stream = self.adapter.submit(self.task); next(self.stream)", late)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def run(engine: FakeEngine, before: str, late: str) -> subprocess.CompletedProcess[str]:
    """The program, to its end."""
    program = PROGRAM.format(before=before or "pass", late=late)
    command = [sys.executable, "-c", program, engine.url]
    # What measures coverage keeps the module's object beyond the moment that this is about.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=4 * SOON, check=False, env=environment
    )
