"""The chat over HTTP: readers that come again, readers that come too late, and the servers."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from examples.client import Reader, ask, post
from examples.conftest import CHAT, Chat
from examples.programs import documented, free_port, on_port, running
from support import answer
from wsgi.servers import need


def port_of(chat: Chat) -> int:
    """Where it listens."""
    port = urlsplit(chat.url).port
    assert port is not None
    return port


def test_reader_who_was_cut_off(chat: Chat) -> None:
    """The browser's Last-Event-ID brings exactly what came after it."""
    chat.engine.script(*answer("Once", " upon", " a", " time"))
    port = port_of(chat)
    path = ask(port, "Tell me a tale")
    with Reader(port, path) as reader:
        events = reader.events()

    with Reader(port, path, **{"Last-Event-ID": events[2].id}) as reader:
        assert reader.events() == events[3:]


@pytest.mark.parametrize("event_id", ["odd", "-1", "999", "1-2-3", "9" * 5000])
def test_odd_event_id(chat: Chat, event_id: str) -> None:
    """What no answer has given out is refused, with a status."""
    chat.engine.script(*answer("Once"))
    port = port_of(chat)
    path = ask(port, "Tell me a tale")
    with Reader(port, path) as reader:
        reader.events()

    with Reader(port, path, **{"Last-Event-ID": event_id}) as reader:
        assert reader.status == 400


def test_cancel_twice(chat: Chat) -> None:
    """An answer that is over, or was never there, can be cancelled as well."""
    port = port_of(chat)
    chat.engine.script(*answer("Once"))
    path = ask(port, "Tell me a tale")
    with Reader(port, path) as reader:
        reader.events()

    assert post(port, f"{path}/cancel").status == 204
    assert post(port, "/answers/some-job/cancel").status == 204


def test_gunicorn_on_the_embedded_engine(tmp_path: Path) -> None:
    """The README's command for one process: no engine, no Redis, and tokens come."""
    need("flask")
    need("gunicorn")
    port = free_port()
    command = on_port(documented(CHAT, "gunicorn"), port)
    options = "--no-control-socket --graceful-timeout=1"
    with running(command, tmp_path, GUNICORN_CMD_ARGS=options) as program:
        program.wait_serving(port)
        with Reader(port, ask(port, "Tell me a tale")) as reader:
            assert reader.token() != ""


def test_redis_away(tmp_path: Path) -> None:
    """Who asks is told soon, and the web process lives on."""
    for module in ("flask", "celery", "redis"):
        need(module)
    port, nobody = free_port(), free_port()
    command = documented(CHAT, "python examples/flask_chat/app.py")
    url = f"redis://127.0.0.1:{nobody}/0"
    with running(command, tmp_path, REDIS_URL=url, PORT=str(port)) as program:
        program.wait_serving(port)
        replies = [post(port, "/answers", {"question": "Hello", "turns": []}) for _ in range(2)]

    assert replies == [(503, "the workers' queue cannot be reached")] * 2
