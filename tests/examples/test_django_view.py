"""The Django view, run as its text says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from examples.client import Reader
from examples.programs import documented, free_port, on_port, running
from support import SOON, answer
from wsgi.servers import need

from vllm_http.testing import FakeEngine, Stall, Status, Text


PAGE = "django_view/app.py"


@contextmanager
def serving(command: list[str], folder: Path, **variables: str) -> Iterator[int]:
    """Run the example on a free port."""
    need("django")
    port = free_port()
    options = "--no-control-socket --graceful-timeout=1"
    variables |= {"PORT": str(port), "GUNICORN_CMD_ARGS": options}
    with running(on_port(command, port), folder, **variables) as program:
        program.wait_serving(port)
        yield port


@pytest.fixture
def port(engine: FakeEngine, tmp_path: Path) -> Iterator[int]:
    """Where the example listens; its engine is the test's."""
    command = documented(PAGE, "python")
    with serving(command, tmp_path, VLLM_URL=engine.url) as port:
        yield port


def test_tokens(port: int, engine: FakeEngine) -> None:
    """They come as events."""
    engine.script(*answer("Once", " upon"))
    with Reader(port, "/say?text=Tell+me+a+tale") as reader:
        types = [event.data["type"] for event in reader.events()]

    (request,) = engine.wait_for_requests(1, path="/v1/chat/completions")
    assert request.json["messages"] == [{"role": "user", "content": "Tell me a tale"}]
    assert types == ["started", "token", "token", "end"]


def test_who_leaves_frees_the_engine(port: int, engine: FakeEngine) -> None:
    """The engine sees the hang-up, within two heartbeats."""
    engine.script(Text("Once"), Stall())
    with Reader(port, "/say") as reader:
        assert reader.token() == "Once"

    (request,) = engine.wait_for_requests(1, path="/v1/chat/completions")
    assert request.hung_up.wait(10 + SOON)


def test_refusal_has_a_status(port: int, engine: FakeEngine) -> None:
    """It is the engine's own, with its words."""
    engine.script(Status(400, {"error": {"message": "too hot", "code": 400}}))
    with Reader(port, "/say") as reader:
        assert (reader.status, reader.text()) == (400, "engine answered 400: too hot")


@pytest.mark.parametrize("start", ["python", "gunicorn"])
def test_embedded_engine(start: str, tmp_path: Path) -> None:
    """Without a server there are tokens all the same, whoever serves."""
    if start == "gunicorn":
        need("gunicorn")
    command = documented(PAGE, start)
    with serving(command, tmp_path) as port, Reader(port, "/say") as reader:
        assert reader.token() != ""
