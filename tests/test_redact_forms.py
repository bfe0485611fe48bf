"""Secrets in the forms that others write them in: escaped as JSON, in a URL, in HTML, or again."""

from __future__ import annotations

import html
import json
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_http import Error, RetryPolicy, TaskRequest, VllmHttpAdapter
from vllm_http._options import secrets_in
from vllm_http._redact import MAX_TEXT, Redactor, fingerprint
from vllm_http.testing import ErrorEvent, FakeEngine


SECRET = "a\"b/c+d&e'f<g>h=i%j\\k l\u00e9\u20ac\U0001f511"


def unicode_escapes(text: str) -> str:
    """As .NET and PHP do: whatever is no letter, as capitals."""
    coded = (s if s.isalnum() and s.isascii() else f"\\u{ord(s):04X}" for s in text)
    return "".join(coded).replace("\\u1F511", "\\uD83D\\uDD11")


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON as UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON with \\/": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON with \\u for all": unicode_escapes,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "URL": lambda text: urllib.parse.quote(text, safe=""),
    "URL's path": urllib.parse.quote,
    "URL in small letters": lambda text: urllib.parse.quote(text, safe="").lower(),
    "URL twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
    "form": urllib.parse.quote_plus,
    "HTML": html.escape,
    "HTML by &#39;": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "HTML by numbers": lambda text: "".join(f"&#{ord(s)};" if not s.isalnum() else s for s in text),
    "HTML twice": lambda text: html.escape(html.escape(text)),
    "JSON in HTML": lambda text: html.escape(json.dumps(text)[1:-1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_known_secret_in_any_form(form: str) -> None:
    """It is masked whole, and its fingerprint is its own, whatever form it came in."""
    said = Redactor([SECRET])(f"before {FORMS[form](SECRET)} after")

    assert said == f"before ****{fingerprint(SECRET)} after"


@given(
    secret=st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=7),
    form=st.sampled_from(list(FORMS)),
)
def test_any_known_secret_in_any_form(secret: str, form: str) -> None:
    """Each sign of it counts."""
    if form == "URL in small letters" and secret != secret.lower():
        return  # a letter of it is another one then
    if form == "JSON with \\u for all" and any(ord(sign) > 0xFFFF for sign in secret):
        return
    said = Redactor([secret])(f"({FORMS[form](secret)})")

    assert said == f"(****{fingerprint(secret)})"


@pytest.mark.parametrize(
    "text",
    [
        "passwd=hushhush",
        "db_passwd: hushhush",
        "DB_PWD=hushhush",
        "passphrase: 'hushhush'",
        '{"session": "hushhush"}',
        "sessionid=hushhush; path=/",
        "session-id: hushhush",
        "{'credential': 'hushhush'}",
        "credentials=hushhush&a",
        "X-Amz-Credential: hushhush",
        "signature=hushhush",
        '{"x-signature":"hushhush"}',
        "jwt=hushhush",
        "jwt: hushhush",
        "private_key=hushhush",
        "aws_secret_access_key = hushhush",
        "AccountKey=hushhush",
        "sessionToken: hushhush",
        "refresh_token=hushhush",
        "Cookie: hushhush",
        "{&quot;api_key&quot;: &quot;hushhush&quot;}",
        "%22token%22:%22hushhush%22",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodXNoaHVzaCJ9.hushhush",
    ],
)
def test_what_is_named_a_secret_is_one(text: str) -> None:
    """By the name before it, or by its own look."""
    assert "hushhush" not in Redactor()(text)
    assert "****" in Redactor()(text)


@pytest.mark.parametrize("name", ["X-Session", "X-Signature", "X-Jwt", "X-Credential", "X-Passwd"])
def test_a_header_so_named_holds_a_secret(name: str) -> None:
    """Wherever an engine repeats it."""
    assert "gateway-s3cr3t" not in Redactor(secrets_in({name: "gateway-s3cr3t"}, {}))(
        "no such thing: gateway-s3cr3t"
    )


def test_each_cookie_is_a_secret() -> None:
    """An engine may quote one of them."""
    redact = Redactor(secrets_in({"Cookie": "a=first-s3cr3t; b=second-s3cr3t"}, {}))

    assert "s3cr3t" not in redact("first-s3cr3t and second-s3cr3t")


# How much is looked at.


def test_what_is_not_shown_is_not_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MiB of secrets are not masked one by one: that held up other threads for a second."""
    masked: list[str] = []

    def counted(secret: str) -> str:
        masked.append(secret)
        return "000000"

    monkeypatch.setattr("vllm_http._redact.fingerprint", counted)
    text = "token=abc " * (8 * 2**20 // 10)

    said = Redactor()(text)

    assert len(said) == MAX_TEXT + 3
    assert len(masked) < 10_000


@pytest.mark.parametrize(
    "piece", ["a", "authorization: ", "http://", "\n", "&amp;", "\\", "%25", "token=", "eyJ", "?a."]
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    """Else this does not end within the test's time limit."""
    said = Redactor([SECRET, "+/k3y-s3cr3t-0123", '%&\\"key'])(piece * (8 * 2**20 // len(piece)))

    assert len(said) <= MAX_TEXT + 3


@pytest.mark.parametrize("end", range(65500, 65600, 7))
def test_a_secret_at_the_end_of_what_is_looked_at(end: int) -> None:
    """Half of it is not shown, though all before it shrinks to nothing."""
    key = "k3y-s3cr3t-0123456789abcdef"
    text = "token=" + "x" * (end - 6 - len(" " + key)) + " " + key + "y" * 100_000

    assert "k3y" not in Redactor([key])(text)


def test_a_monstrous_error_inside_a_stream() -> None:
    """Its class and its beginning are told; the rest costs nothing."""
    text = "no: " + "http://a " * 800_000
    with (
        FakeEngine() as engine,
        VllmHttpAdapter(engine.url, retry=RetryPolicy(attempts=1)) as adapter,
    ):
        engine.script(ErrorEvent(text, code=400))
        *_, last = adapter.submit(TaskRequest(prompt="Hi"))

    assert isinstance(last, Error)
    assert last.error.message.startswith("engine answered 400: no: http://a")
    assert len(last.error.message) < MAX_TEXT + 100
