"""The examples in docs/wsgi.md, as they stand there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
import support
from support import SOON, posts
from wsgi.servers import need

import vllm_http
from vllm_http.integrations.wsgi import status_of
from vllm_http.testing import FakeEngine, Stall, Status, Text


engine = support.engine

DOCS = (Path(__file__).parents[2] / "docs" / "wsgi.md").read_text()


def example(name: str, engine: FakeEngine) -> dict[str, Any]:
    """What an example defines, with its adapter on this engine."""
    pattern = rf"^<!-- example: {name} -->\n```python\n(.*?)^```$"
    (code,) = re.findall(pattern, DOCS, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": name}
    exec(code.replace("http://localhost:8000", engine.url), names)
    return names


def test_plain_wsgi(engine: FakeEngine) -> None:
    """The standard library's validator finds nothing against it, and closing frees the engine."""
    engine.script(Text("Once"), Stall())
    names = example("plain", engine)
    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        said.extend([status, dict(headers)])
        return lambda data: None

    with names["adapter"]:
        body: Iterable[bytes] = validator(names["application"])(environ, start_response)
        pieces = iter(body)
        received = next(pieces)
        while b'"Once"' not in received:
            received += next(pieces)
        body.close()  # type: ignore[attr-defined]

        assert posts(engine)[0].hung_up.wait(SOON)
    assert said[0] == "200 OK"
    assert said[1]["Content-Type"] == "text/event-stream; charset=utf-8"


def test_flask(engine: FakeEngine) -> None:
    """Its response streams, and closing it frees the engine."""
    need("flask")
    engine.script(Text("Once"), Stall())
    names = example("flask", engine)

    with names["adapter"]:
        response = names["application"].test_client().post("/say", data="Tell me a tale")
        received = b""
        for piece in response.iter_encoded():
            received += piece
            if b'"Once"' in received:
                break
        response.close()

        (request,) = posts(engine)
        assert request.hung_up.wait(SOON)
    assert request.json["prompt"] == "Tell me a tale"
    assert response.headers["X-Accel-Buffering"] == "no"


def test_django(engine: FakeEngine) -> None:
    """Its response streams, and closing it frees the engine."""
    need("django")
    settings = importlib.import_module("django.conf").settings
    if not settings.configured:
        settings.configure()
    engine.script(Text("Once"), Stall())
    names = example("django", engine)

    with names["adapter"]:
        factory = importlib.import_module("django.test").RequestFactory()
        request = factory.post("/say", "Tell me a tale", content_type="text/plain")
        response = names["say"](request)
        received = b""
        for piece in response:
            received += piece
            if b'"Once"' in received:
                break
        response.close()

        (post,) = posts(engine)
        assert post.hung_up.wait(SOON)
    assert post.json["prompt"] == "Tell me a tale"
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"


def test_status(engine: FakeEngine) -> None:
    """A refused task has its status, and the next one streams."""
    need("flask")
    names = example("status", engine)
    client = names["application"].test_client()

    with names["adapter"]:
        engine.script(Status(400, {"error": {"message": "too hot", "code": 400}}))
        refused = client.post("/say")
        answered = client.post("/say")

        assert (refused.status_code, refused.text) == (400, "engine answered 400: too hot")
        assert answered.status_code == 200
        assert "event: end\n" in answered.text


@pytest.mark.parametrize(
    ("names", "status"), re.findall(r"^\| (`[A-Z].*?) \| (\d+).* \|$", DOCS, re.MULTILINE)
)
def test_table_of_statuses(names: str, status: str) -> None:
    """Each class that the table names has the status that stands first beside it."""
    for name in re.findall(r"`(\w+)`", names):
        assert status_of(getattr(vllm_http, name)("so"))[0] == HTTPStatus(int(status))
