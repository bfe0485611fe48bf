"""The chat in its two ways of working, with an engine of the tests' behind it, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from examples.browser import Page, chromium
from examples.programs import documented, free_port, need_program, running
from support import engine, gate
from wsgi.servers import need

from vllm_http.testing import FakeEngine, ReceivedRequest


if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["engine", "gate"]

CHAT = "flask_chat/README.md"
COMMANDS = {
    "memory": "python examples/flask_chat/app.py",
    "celery": "python examples/with_celery.py examples/flask_chat/app.py",
}


@dataclass(frozen=True)
class Chat:
    """A chat that runs, and the engine behind it."""

    url: str
    engine: FakeEngine

    def posts(self, count: int = 0) -> list[ReceivedRequest]:
        """The tasks that have reached the engine, once they are so many."""
        return self.engine.wait_for_requests(count, timeout=10, path="/v1/chat/completions")


@pytest.fixture(scope="module", params=COMMANDS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chat]:
    """The chat in one process, then with Celery and Redis; all tests of a module share it."""
    need("flask")
    if request.param == "celery":
        need("celery")
        need("redis")
        need_program("redis-server")
    port = free_port()
    command = documented(CHAT, COMMANDS[request.param])
    folder = tmp_path_factory.mktemp("chat")
    with (
        FakeEngine(keep_alive=0.1) as engine,
        running(command, folder, VLLM_URL=engine.url, PORT=str(port)) as program,
    ):
        program.wait_serving(port)
        yield Chat(f"http://127.0.0.1:{port}", engine)


@pytest.fixture
def chat(served: Chat) -> Chat:
    """The chat, whose engine is idle."""
    served.engine.wait_idle()
    return served


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """One for all tests."""
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, chat: Chat) -> Page:
    """The page of a chat that has just begun."""
    return Page(browser, chat.url)
