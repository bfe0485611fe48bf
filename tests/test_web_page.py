"""A web page where JSON should be is noticed, and told in one line."""

from __future__ import annotations

import time

import pytest

from vllm_http._redact import Redactor
from vllm_http._refusal import Asked, refusal_of_answer
from vllm_http._web_page import page_in


redact = Redactor(["hunter2"])
ASKED = Asked("http://gateway:8000/v1/completions")
NGINX = b"""<html>\r
<head><title>502 Bad Gateway</title></head>\r
<body>\r
<center><h1>502 Bad Gateway</h1></center>\r
<hr><center>nginx/1.27.0</center>\r
</body>\r
</html>\r
"""
APP = b"<!DOCTYPE html><html><head><script>var x = 1 < 2;</script><style>p {}</style></head>"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (NGINX, "502 Bad Gateway"),
        (b"<html>Bad day</html>", "Bad day"),
        (b"\n <!doctype html>\n<TITLE lang=en>\n Two\n lines </TITLE>", "Two lines"),
        (b"<html><title></title><body><p>first</p><p>second</p>", "first"),
        (APP + b"<body><div id=app>Loading&hellip; &amp; so on</div>", "Loading\u2026 & so on"),
        (b"<html><!-- <b>no</b> --><h1>Welcome</h1>", "Welcome"),
        (b"\xef\xbb\xbf<html>BOM</html>", "BOM"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
        (b"<html></html>", ""),
        (b"<html><script>never closed", ""),
        (b"<html>" + b"x" * 5000, "x" * 200 + "..."),
    ],
)
def test_page_is_told_in_a_line(body: bytes, line: str) -> None:
    """Its title, or else the first words that a browser would show."""
    assert page_in(body) == line


@pytest.mark.parametrize(
    "kind", ["text/html", "Text/HTML ; charset=utf-8", "application/xhtml+xml"]
)
def test_page_is_one_by_its_content_type(kind: str) -> None:
    """Also where its text has no mark of it."""
    assert page_in(b"Bad day", kind) == "Bad day"


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_no_body_is_no_page(body: bytes) -> None:
    """Whatever its content type says."""
    assert page_in(body, "text/html") is None


@pytest.mark.parametrize("body", [b'{"error": "<p>"}', b"", b"no", b"1 < 2", b"< 5", b"data: <p>"])
def test_other_text_is_no_page(body: bytes) -> None:
    """JSON that speaks of HTML, and plain words."""
    assert page_in(body, "application/json") is None


@pytest.mark.parametrize("piece", [b"<", b"<script>", b"<!--", b"<title", b"&amp", b"<a>", b">"])
def test_any_page_is_told_in_a_moment(piece: bytes) -> None:
    """No page keeps a worker busy."""
    start = time.process_time()

    page_in(b"<html>" + piece * 20_000)

    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 502, 503])
def test_refusal_with_a_page(status: int) -> None:
    """For any status: it says what it is, where, and one line of it. No tags, no secret."""
    body = b"<html><head><title>Sorry hunter2</title></head><body>long page</body></html>"
    message = refusal_of_answer(status, {"Content-Type": "text/html"}, body, redact, ASKED).message

    assert message.startswith(f"engine answered {status} for http://gateway:8000/v1/completions")
    assert "this is no vLLM server" in message
    assert "<" not in message
    assert "long page" not in message
    assert "hunter2" not in message
    assert "Sorry" in message


def test_redirect_with_a_page() -> None:
    """Most have one, and what counts is where it points."""
    message = refusal_of_answer(302, {"Location": "http://elsewhere"}, NGINX, redact).message

    assert message == (
        "engine answered 302, a redirect to http://elsewhere; redirects are not followed"
    )
