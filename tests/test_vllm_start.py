"""The way in to a real vLLM, with a stand-in for it: what a start tells, and what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import SOON, wait_until
from vllm import recipe, server


RUN = Path(__file__).parent / "vllm" / "run.py"
WANTS_PYTEST = """
import runpy, sys
for name in ("pytest", "_pytest", "hypothesis", "responses", "flask", "celery", "openai"):
    sys.modules[name] = None  # not installed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

STAND_IN = """#!{python}
import pathlib, sys, time

print("(APIServer pid=7) INFO 11-23 10:00:00 [launcher.py:46] Loading the weights", flush=True)
while not pathlib.Path({go!r}).exists():
    time.sleep(0.01)
{then}
"""
SERVES = """
from vllm_http.testing import FakeEngine

with FakeEngine("smollm2", port=int(sys.argv[sys.argv.index("--port") + 1])) as engine:
    time.sleep(600)
"""


class StandIn:
    """An installation whose vLLM starts when it is told to.

    Args:
        cache: What the recipe takes for the user's cache.
        then: What it does once it is told, as Python.
    """

    def __init__(self, cache: Path, then: str) -> None:
        home = cache / "vllm-http" / f"vllm-{recipe.VLLM}"
        self.installation = recipe.Installation(home / "venv", home / "model")
        self._go = cache / "go"
        for folder in self.installation:
            (folder / "bin").mkdir(parents=True)
            (folder / ".complete").touch()
        program = self.installation.venv / "bin" / "python"
        program.write_text(STAND_IN.format(python=sys.executable, go=str(self._go), then=then))
        program.chmod(0o755)

    def go(self) -> None:
        """Tell it to."""
        self._go.touch()


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """One that serves in the end."""
    return StandIn(tmp_path, SERVES)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heart that beats often."""
    monkeypatch.setattr(server, "HEARTBEAT", 0.05)
    monkeypatch.setattr(recipe, "HEARTBEAT", 0.05)


@pytest.fixture
def starting(stand_in: StandIn, tmp_path: Path, quick: None) -> Iterator[server.Server]:
    """A server that has said its first line."""
    started = server.Server(stand_in.installation, server.free_port(), log=tmp_path / "server.log")
    try:
        wait_until(lambda: started.log_lines() != [], timeout=4 * SOON)
        yield started
    finally:
        started.stop()


def test_a_start_has_a_heartbeat(
    starting: server.Server,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How long it has been, how long it may take, and the last that it said."""
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            stand_in.go()

    monkeypatch.setattr(server, "say", say)
    monkeypatch.setenv("VLLM_START_LIMIT", "120")
    starting.wait_until_ready()

    expected = r"vLLM is starting, \d+ s of at most 120: Loading the weights"
    assert [line for line in told if not re.fullmatch(expected, line)] == []
    assert len(told) >= 2


def test_a_start_at_its_limit(starting: server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variable gives it longer, what else to do, and what it said last."""
    monkeypatch.setenv("VLLM_START_LIMIT", "0.2")
    with pytest.raises(server.ServerError) as caught:
        starting.wait_until_ready()

    message = str(caught.value)
    assert "not ready after 0.2 s" in message
    assert "set VLLM_START_LIMIT" in message
    assert str(recipe.cache_folder()) in message
    assert "Loading the weights" in message


@pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan"])
def test_a_limit_that_is_none(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """It is refused by name."""
    monkeypatch.setenv("VLLM_START_LIMIT", limit)

    with pytest.raises(server.ServerError, match=f"VLLM_START_LIMIT: '{limit}'"):
        server.start_limit()


@pytest.mark.parametrize("limit", [None, "", " "])
def test_a_limit_that_is_not_set(monkeypatch: pytest.MonkeyPatch, limit: str | None) -> None:
    """Blank is unset."""
    if limit is None:
        monkeypatch.delenv("VLLM_START_LIMIT", raising=False)
    else:
        monkeypatch.setenv("VLLM_START_LIMIT", limit)

    assert server.start_limit() == server.START


def test_a_start_that_fails(tmp_path: Path, quick: None) -> None:
    """Its own last words are in the message, at once."""
    stand_in = StandIn(tmp_path, "sys.exit('no memory')")
    stand_in.go()
    port, log = server.free_port(), tmp_path / "server.log"

    with (
        pytest.raises(server.ServerError, match=r"code 1 before it was ready(?s:.)*no memory"),
        server.serving(stand_in.installation, port, log=log),
    ):
        pass


def test_a_step_of_the_recipe_has_a_heartbeat(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pip says nothing for a minute."""
    told: list[str] = []
    go = tmp_path / "go"

    def say(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            go.touch()

    monkeypatch.setattr(recipe, "say", say)
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
    recipe.run("the longest step", [sys.executable, "-c", wait])

    assert told[0] == "the longest step"
    assert {*told[1:]} == {"still at it: the longest step"}


def started(stand_in: StandIn, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What becomes of run.py where nothing of what tests need is installed."""
    return subprocess.run(
        [sys.executable, "-c", WANTS_PYTEST, str(RUN), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )


def test_run_needs_nothing_that_tests_need(stand_in: StandIn, tmp_path: Path) -> None:
    """One prompt is answered, by the command line."""
    stand_in.go()
    ended = started(stand_in, tmp_path, "--run", "Hello", "--max-tokens", "3")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() != ""
    assert "3 tokens" in ended.stderr


def test_serve_needs_nothing_that_tests_need(tmp_path: Path) -> None:
    """It serves until its engine ends."""
    once = "engine.wait_for_requests(1, 60, path='/v1/models')[0].finished.wait(60)"
    serves_once = SERVES.replace("time.sleep(600)", once)
    stand_in = StandIn(tmp_path, serves_once)
    stand_in.go()
    ended = started(stand_in, tmp_path, "--serve", "--port", str(server.free_port()))

    assert "is served at http://127.0.0.1:" in ended.stderr
    assert "vLLM ended by itself, with code 0" in ended.stderr


def test_tests_without_their_tools(stand_in: StandIn, tmp_path: Path) -> None:
    """What to install is said, instead of a traceback."""
    ended = started(stand_in, tmp_path)

    assert ended.returncode == 1
    assert "pip install 'vllm-http[test,servers]'" in ended.stderr
    assert "Traceback" not in ended.stderr
