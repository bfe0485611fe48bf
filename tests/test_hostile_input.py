"""What a caller is made to pass on, such as a user's text: no line end in it forges a line.

Whatever is given is refused at once, or arrives as what it was: one value, in its own place.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any
from urllib.parse import quote

import pytest
import support
from hypothesis import given
from hypothesis import strategies as st
from requests.auth import _basic_auth_str
from requests.utils import get_auth_from_url
from support import a_task, posts

from vllm_http import InvalidRequest, VllmHttpAdapter
from vllm_http._options import check_headers, check_proxies
from vllm_http._request import encode, parse_base_url
from vllm_http._task import TaskRequest
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

SEPARATORS = [
    *("\r", "\n", "\r\n", "\0", "\t", "\v", "\f", "\x1b", "\x7f"),
    *("\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"),
]
FORGED = "X-Forged: yes"

hostile = st.text(
    st.sampled_from("\r\n\0\t\v\f\x1c\x1e\x85\u2028\u2029\u00a0\u200b\ufeff\u010d\u560a: aé%")
    | st.characters(),
    max_size=30,
)
"""Any text, rich in what ends lines: U+010D and U+560A are CR and LF if cut to their low bytes."""

IDS = ["job_id", "session_id", "correlation_id"]


def is_one_field_value(value: str) -> bool:
    """Whether it is safe as a header's value: visible ASCII and inner spaces (RFC 9110, 5.5)."""
    return all(" " <= sign <= "~" for sign in value) and value == value.strip()


def assert_one_line(refusal: InvalidRequest) -> None:
    """Check that a refusal shows what it refuses escaped, fit for a log."""
    assert refusal.message.isprintable()


# The ids of a task.


@pytest.mark.parametrize("field", IDS)
@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("form", ["a{}" + FORGED, "a{}", "{}a"])
def test_ids_hold_no_line_end(
    engine: FakeEngine, adapter: VllmHttpAdapter, field: str, separator: str, form: str
) -> None:
    """Wherever it stands; the refusal shows it escaped, and the engine hears nothing."""
    task = a_task(**{field: form.format(separator)})

    with pytest.raises(InvalidRequest) as caught:
        adapter.submit(task)

    assert caught.value.message.startswith(f"{field}: ")
    assert caught.value.message.isprintable()
    assert posts(engine, 0) == []


@given(field=st.sampled_from(IDS), value=hostile)
def test_any_id_is_refused_or_one_header(field: str, value: str) -> None:
    """What validate lets through is safe, and what it says is one line."""
    task = TaskRequest(prompt="Hello", **{field: value})  # type: ignore[arg-type]
    try:
        task.validate()
    except InvalidRequest as refusal:
        assert_one_line(refusal)
        return

    assert value.isprintable()
    assert is_one_field_value(encode(task, task.job_id or "j").correlation_id)


# What goes into the body.


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_texts_of_the_body_stay_there(
    engine: FakeEngine, adapter: VllmHttpAdapter, separator: str
) -> None:
    """The model's name and a chat arrive to the letter and forge nothing around them."""
    text = f"a{separator}{FORGED}{separator}{separator}b"
    chat = [{"role": "user", "content": text, "name": text}]
    list(adapter.submit(a_task(prompt=None, messages=chat, model=text)))  # no such model

    (post,) = engine.wait_for_requests(1, path="/v1/chat/completions")
    body = json.loads(post.body)
    assert (body["model"], body["messages"]) == (text, chat)
    assert post.headers_named("x-forged") == []
    assert post.headers_named("content-length") == [str(len(post.body))]


@given(text=hostile.filter(lambda text: text != ""))
def test_any_text_is_one_json_value(text: str) -> None:
    """Read back, a body holds what was put in, as model, prompt, or a field of another name."""
    try:
        wire = encode(TaskRequest(prompt=text, model=text, extra_body={"x": {text: text}}), "j")
    except InvalidRequest:
        assert any("\ud800" <= sign <= "\udfff" for sign in text)
        return

    body = json.loads(wire.body)
    assert (body["prompt"], body["model"], body["x"]) == (text, text, {text: text})
    assert b"\n" not in wire.body
    assert b"\r" not in wire.body


# What an adapter is made with.


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("form", ["a{}" + FORGED, "a{}", "{}a"])
def test_headers_and_key_hold_no_line_end(separator: str, form: str) -> None:
    """Neither names nor values; what is refused is not shown, since it may be a secret."""
    value = form.format(separator)
    options: list[dict[str, Any]] = [
        {"api_key": f"hush-{value}"},
        {"headers": {"X-A": f"hush-{value}"}},
        {"headers": {f"X-{value}": "hush-"}},
        {"headers": {f"X-{value}": "hush-"}, "api_key": "hush-"},
    ]
    for option in options:
        with pytest.raises(InvalidRequest) as caught:
            VllmHttpAdapter("http://127.0.0.1:1", **option)
        assert caught.value.message.isprintable()
        assert "hush-" not in str(caught.value)


@given(name=hostile, value=hostile, key=hostile | st.none())
def test_any_header_is_refused_or_one_header(name: str, value: str, key: str | None) -> None:
    """What is let through is a token and a value; nothing in it can begin another line."""
    try:
        sent = check_headers({name: value}, key)
    except InvalidRequest as refusal:
        assert_one_line(refusal)
        return

    assert all(sign.isascii() and (sign.isalnum() or sign in "!#$%&'*+-.^_`|~") for sign in name)
    assert all(map(is_one_field_value, sent.values()))


@given(key=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_printable_key_is_taken(key: str) -> None:
    """The check is no stricter than a header is."""
    assert check_headers(None, key)["Authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize(
    "form",
    ["http://127.0.0.1{}:1", "http://127.0.0.1:1{}/a", "http://127.0.0.1:1/a{}b", "ht{}tp://h"],
)
def test_base_url_holds_no_line_end(separator: str, form: str) -> None:
    """urllib drops some of them without a word, and what is asked is then not what was checked."""
    with pytest.raises(InvalidRequest, match=r"^base_url: ") as caught:
        VllmHttpAdapter(form.format(separator))

    assert caught.value.message.isprintable()


@given(host=hostile, path=hostile)
def test_any_base_url_is_refused_or_one_line(host: str, path: str) -> None:
    """What is taken is printable, and no space ends it early in a request line."""
    try:
        url = parse_base_url(f"http://{host}/{path}")
    except InvalidRequest as refusal:
        assert_one_line(refusal)
        return

    assert url.isprintable()
    assert " " not in url


@pytest.mark.parametrize("label", ["pool_id", "replica_id"])
@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_labels_hold_no_line_end(label: str, separator: str) -> None:
    """They stand in log records."""
    with pytest.raises(InvalidRequest, match=f"^{label}: "):
        VllmHttpAdapter("http://127.0.0.1:1", **{label: f"a{separator}b"})  # type: ignore[arg-type]


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize(
    "form", ["http://user:hush-{}@h", "http://us{}er:hush-@h", "http://h{}:1", "{}http://h", "h{}"]
)
def test_proxies_hold_no_line_end(separator: str, form: str) -> None:
    """urllib drops some of them without a word: what is sent is not what is kept secret then."""
    with pytest.raises(InvalidRequest, match=r"^proxies") as caught:
        VllmHttpAdapter("http://127.0.0.1:1", proxies={"http": form.format(separator)})

    assert caught.value.message.isprintable()
    assert "hush-" not in str(caught.value)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://us\u20acr:hush-@h",
        "http://user:hush-\u20ac@h",
        "http://user:hush-%E2%82%AC@h",
        "http://user:hush-%ff@h",
        "http://user:hush-%0a@h",
        "http://us%00er:hush-@h",
        "http://user:hush-@h\ud800",
        "http://user:hush-\udcff@h",
    ],
    ids=ascii,
)
def test_proxies_that_cannot_be_used(proxy: str) -> None:
    """Credentials are sent in Latin-1, without control characters; nothing prints a surrogate."""
    with pytest.raises(InvalidRequest, match=r"^proxies") as caught:
        VllmHttpAdapter("http://127.0.0.1:1", proxies={"http": proxy})

    assert "hush-" not in str(caught.value)


@given(user=hostile, password=hostile, host=hostile, quoted=st.booleans())
def test_any_proxy_is_refused_or_can_be_used(
    user: str, password: str, host: str, quoted: bool
) -> None:
    """What is let through has credentials that go into a header, and prints."""
    if quoted:
        user, password = quote(user, errors="replace"), quote(password, errors="replace")
    url = f"http://{user}:{password}@{host}"
    try:
        taken = check_proxies({"http": url})
    except InvalidRequest as refusal:
        assert_one_line(refusal)
        return

    assert taken == {"http": url}
    assert url.isprintable()
    credentials = get_auth_from_url(url)
    assert not any(unicodedata.category(sign) == "Cc" for sign in "".join(credentials))
    assert _basic_auth_str(*credentials).isprintable()
