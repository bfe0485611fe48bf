"""The web process is started anew under an open page, which comes back to what Redis has.

Nobody loads the page again, the text on it only ever grows, and in the end it is whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from examples.browser import Page
from examples.conftest import CHAT
from examples.programs import Program, documented, need_program, running
from examples.web import FLASK, GUNICORN, Web, end, refuse
from support import SOON, answer
from wsgi.servers import need

from vllm_http.testing import (
    Done,
    FakeEngine,
    Finish,
    ReceivedRequest,
    Stage,
    Stall,
    Text,
    Usage,
    Wait,
)


if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@dataclass(frozen=True)
class Behind:
    """What lives on behind the web process: a Redis, a worker, an engine."""

    engine: FakeEngine
    redis: str


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """All tests of the module share it."""
    for module in ("flask", "gunicorn", "celery", "redis"):
        need(module)
    need_program("redis-server")
    from relay.redis_server import RedisServer

    folder = tmp_path_factory.mktemp("behind")
    command = documented(CHAT, "celery")
    with (
        FakeEngine(keep_alive=0.1) as engine,
        RedisServer(folder) as redis,
        running(command, folder, REDIS_URL=redis.url, VLLM_URL=engine.url),
    ):
        yield Behind(engine, redis.url)


@pytest.fixture
def engine(behind: Behind) -> FakeEngine:
    """It is idle."""
    behind.engine.wait_idle()
    return behind.engine


@pytest.fixture(params=[FLASK])
def web(request: pytest.FixtureRequest, behind: Behind, tmp_path: Path) -> Iterator[Web]:
    """None runs as yet; none is left afterwards."""
    web = Web(request.param, tmp_path, {"REDIS_URL": behind.redis})
    with web.around:
        yield web


@pytest.fixture
def in_memory(web: Web, engine: FakeEngine) -> None:
    """The web process makes the answers itself, and keeps them to itself."""
    web.variables = {"VLLM_URL": engine.url}


@pytest.fixture
def program(web: Web) -> Program:
    """The first one."""
    return web.begin()


@pytest.fixture
def page(browser: Chrome, web: Web, program: Program) -> Iterator[Page]:
    """The page, watched."""
    page = Page(browser, f"http://127.0.0.1:{web.port}")
    page.watch()
    yield page
    page.leave()


def asked(engine: FakeEngine, count: int = 0) -> list[ReceivedRequest]:
    """The questions that have reached the engine, once they are so many."""
    return engine.wait_for_requests(count, timeout=10, path="/v1/chat/completions")


def tell_half(page: Page, engine: FakeEngine, gate: threading.Event) -> None:
    """Have an answer whose first word is on the page, and the rest behind the gate."""
    engine.script(Text("Once"), Wait(gate), *answer(" upon", " a time"))
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")


def check_growth(page: Page) -> None:
    """Check that nothing on the page was taken back, repeated or loaded again."""
    for before, after in pairwise(page.watched()):
        assert after.startswith(before)


@pytest.mark.parametrize("web", [FLASK, GUNICORN], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_stopped_and_started(
    page: Page, web: Web, program: Program, engine: FakeEngine, how: signal.Signals
) -> None:
    """What came while nobody served is there, and so is what comes afterwards."""
    before = len(asked(engine))
    away, back = threading.Event(), threading.Event()
    engine.script(Text("Once"), Wait(away), Text(" upon"), Wait(back), *answer(" a", " time"))
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")

    end(program, how)
    away.set()
    web.begin()
    page.wait_for("answer", "Once upon")
    back.set()

    page.wait_for("note", "tokens: 4")
    assert page.shows("answer") == ["Once upon a time"]
    assert (page.can("send"), page.can("stop")) == (True, False)
    check_growth(page)
    assert len(asked(engine)) == before + 1


@pytest.mark.parametrize("web", [GUNICORN], indirect=True)
def test_reload_of_gunicorn(
    page: Page, program: Program, engine: FakeEngine, gate: threading.Event
) -> None:
    """Its workers are replaced, each answer in the middle: the page goes to a new one."""
    tell_half(page, engine, gate)
    old = set(program.family()) - {program.process.pid}

    program.process.send_signal(signal.SIGHUP)
    program.wait_without(old)
    gate.set()

    page.wait_for("note", "tokens: 3")
    assert page.shows("answer") == ["Once upon a time"]
    check_growth(page)


def test_answer_that_ends_meanwhile(
    page: Page, web: Web, program: Program, engine: FakeEngine, gate: threading.Event
) -> None:
    """It is complete before anybody serves again, and the page gets the rest and the end."""
    tell_half(page, engine, gate)

    end(program, signal.SIGKILL)
    gate.set()
    engine.wait_idle()
    assert page.shows("answer") == ["Once"]
    web.begin()

    page.wait_for("note", "tokens: 3")
    assert page.shows("answer") == ["Once upon a time"]
    check_growth(page)


def test_stop_button(page: Page, web: Web, program: Program, engine: FakeEngine) -> None:
    """While nobody serves it fails and says so; after that it frees the engine."""
    before = len(asked(engine))
    engine.script(Text("Once"), Stall())
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")

    end(program, signal.SIGKILL)
    page.stop()
    page.wait_for("failed", "failed: Failed to fetch")
    web.begin()
    page.stop()

    assert asked(engine, before + 1)[before].hung_up.wait(SOON)
    page.wait_for("note", "stopped", "failed: Failed to fetch")
    assert page.shows("answer") == ["Once"]


@dataclass
class Counting:
    """A step that counts, one token for each number, until it is enough."""

    enough: threading.Event
    said: str = ""

    def play(self, stage: Stage) -> None:
        number = 0
        while not self.enough.is_set():
            number += 1
            Text(f"{number},").play(stage)
            self.said += f"{number},"
            stage.answer.pause(0.01)


def test_tokens_that_never_pause(
    page: Page, web: Web, program: Program, engine: FakeEngine, gate: threading.Event
) -> None:
    """Three kills, wherever they hit among tokens that come all the time: none is lost or twice."""
    counting = Counting(gate)
    engine.script(counting, Finish(), Usage(), Done())
    page.ask("Count")
    page.wait_for_more()

    for _ in range(3):
        end(program, signal.SIGKILL)
        program = web.begin()
        page.wait_for_more()
    gate.set()
    engine.wait_idle()

    page.wait_for("note", f"tokens: {counting.said.count(',')}")
    assert page.shows("answer") == [counting.said]
    check_growth(page)


def test_proxy_in_front(
    page: Page, web: Web, program: Program, engine: FakeEngine, gate: threading.Event
) -> None:
    """It says 502 while nobody serves, at which a browser gives up; the page does not."""
    tell_half(page, engine, gate)

    end(program, signal.SIGKILL)
    refuse(web.port, times=3)
    gate.set()
    web.begin()

    page.wait_for("note", "tokens: 3")
    assert page.shows("answer") == ["Once upon a time"]
    assert page.watched()[-1] == "Once upon a time"


def test_answer_that_is_gone(
    in_memory: None, page: Page, web: Web, program: Program, engine: FakeEngine
) -> None:
    """Where the web process alone had it, the page says so, and takes the next question."""
    engine.script(Text("Once"), Stall())
    engine.script(*answer("Well"))
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")

    end(program, signal.SIGKILL)
    web.begin()

    page.wait_for("failed", "this answer is gone")
    page.ask("And now?")
    page.wait_for("answer", "Once", "Well")
