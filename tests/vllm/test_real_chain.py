"""The whole chain, once: browser, gunicorn, Celery, a real vLLM, Redis, and back to the browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from examples.browser import Page, chromium
from examples.client import Reader, post
from examples.conftest import CHAT
from examples.programs import START, documented, free_port, need_program, on_port, running
from support import stopwatch, wait_until
from wsgi.servers import need

from .server import Server


LONG = "Write a long story about a king, a dragon and a clever cat."
PATIENCE = 120.0  # Seconds; a small model on a busy CPU.


@pytest.fixture(scope="module")
def port(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where gunicorn listens: the chat's README has the commands."""
    for module in ("flask", "gunicorn", "celery", "redis"):
        need(module)
    need_program("redis-server")
    from relay.redis_server import RedisServer

    port = free_port()
    worker = documented(CHAT, "celery --workdir")
    web = on_port(
        documented(CHAT, "gunicorn --chdir examples/flask_chat -k gthread --threads 64"), port
    )
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path_factory.mktemp("redis")))
        places = {"REDIS_URL": redis.url, "VLLM_URL": vllm.url}
        places["GUNICORN_CMD_ARGS"] = "--no-control-socket --graceful-timeout=1"
        stack.enter_context(running(worker, tmp_path_factory.mktemp("worker"), **places))
        program = running(web, tmp_path_factory.mktemp("web"), **places)
        stack.enter_context(program).wait_serving(port)
        yield port


def test_browser(port: int, vllm: Server, measured: Callable[[str], None]) -> None:
    """A reload in mid-answer loses nothing, stop frees the engine, and the next answer is whole."""
    with chromium() as driver:
        page = Page(driver, f"http://127.0.0.1:{port}/")
        page.ask(LONG)
        wait_until(lambda: any(len(text) > 20 for text in page.shows("answer")), PATIENCE)
        (so_far,) = page.shows("answer")
        page.reload()
        wait_until(lambda: page.shows("answer")[0].startswith(so_far), START)
        assert vllm.running_once_it_is(1) == 1

        page.stop()

        seconds = vllm.seconds_until_idle()
        page.wait_for("note", "stopped")
        page.new()
        page.wait_for("answer")
        page.ask("What is the capital of France?")
        wait_until(lambda: page.shows("note") not in ([], [""]), PATIENCE)
        (answer,), (note,) = page.shows("answer"), page.shows("note")

    measured(f"idle {seconds:.2f} s after the page's stop button, through Celery and Redis")
    assert seconds < 5.0
    assert answer.strip() != ""
    assert re.fullmatch(r"tokens: [1-9]\d*", note)


def test_plain_client(port: int, vllm: Server, measured: Callable[[str], None]) -> None:
    """The same without a browser: the text is the tokens, and a cancel frees the engine."""
    reply = post(port, "/answers", {"question": LONG, "turns": []})
    path = f"/answers/{json.loads(reply.text)['answer']}"
    with Reader(port, path) as reader:
        said = [reader.token() for _ in range(5)]
        with stopwatch() as watch:
            assert post(port, f"{path}/cancel").status == 204
            end = reader.events()[-1].data
            vllm.seconds_until_idle()

    measured(f"idle {watch.seconds:.2f} s after a cancel by HTTP, through Celery and Redis")
    assert "".join(said).strip() != ""
    assert (end["type"], end["finish_reason"]) == ("end", "cancelled")
    assert vllm.running() == 0
