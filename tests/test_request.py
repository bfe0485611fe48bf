"""What goes on the wire for a task, and which base URLs are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_http import InvalidRequest, TaskRequest
from vllm_http._request import encode, parse_base_url


PROMPT = "my private prompt"


def body(task: TaskRequest) -> Any:
    """The JSON that a task sends."""
    return json.loads(encode(task, "job").body)


# The body.


def test_a_task_sends_the_six_keys_and_stream_options() -> None:
    """Just these, in this order; the bytes are fixed, since a changed body is a changed answer."""
    task = TaskRequest(
        prompt="Hello, world!", model="m", max_tokens=100, temperature=0.7, seed=42, session_id="s"
    )

    assert encode(task, "job").body == (
        b'{"model":"m","prompt":"Hello, world!","max_tokens":100,"temperature":0.7,"seed":42,'
        b'"stream":true,"stream_options":{"include_usage":true}}'
    )


def test_nothing_else_is_sent_by_default() -> None:
    """None means that the engine's own default holds."""
    assert body(TaskRequest(prompt="Hi")) == {
        "prompt": "Hi",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_usage_may_be_left_out() -> None:
    """For engines that refuse `stream_options`; the choice travels with the task, as JSON."""
    task = TaskRequest(prompt="Hi", include_usage=False)

    assert body(TaskRequest.from_json(task.to_json())) == {"prompt": "Hi", "stream": True}
    assert "include_usage=False" in repr(task)
    assert "include_usage" not in repr(TaskRequest(prompt="Hi"))


def test_whoever_sets_stream_options_is_told_of_the_field() -> None:
    """What is refused names what to use."""
    task = TaskRequest(prompt="Hi", extra_body={"stream_options": None})

    with pytest.raises(InvalidRequest, match=r"stream_options: not settable.*use include_usage"):
        task.validate()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": "Hi", "seed": 0},
        {"prompt": "Hi", "temperature": 0.0},
        {"prompt": "Hi", "top_p": 0.5},
        {"prompt": "Hi", "priority": 0},
        {"messages": [{"role": "user", "content": "Hi"}]},
    ],
)
def test_what_is_set_is_sent(fields: dict[str, Any]) -> None:
    """A zero is a value like any other."""
    assert body(TaskRequest(**fields)).items() >= fields.items()


def test_what_is_only_for_us_stays_here() -> None:
    """Ids and the deadline are not the engine's business."""
    task = TaskRequest(
        prompt="Hi", session_id="s", deadline_ms=5, correlation_id="c", job_id="j", extra_body={}
    )

    assert body(task) == body(TaskRequest(prompt="Hi"))


def test_extra_body_is_merged_as_it_is() -> None:
    """What has no name here goes out under vLLM's own, null included, after the rest."""
    extra = {"stop": ["\n"], "return_token_ids": True, "user": None}

    assert list(body(TaskRequest(prompt="Hi", extra_body=extra)).items())[-3:] == [*extra.items()]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": "Hi"}, "/v1/completions"),
        ({"prompt": [1]}, "/v1/completions"),
        ({"messages": [{"role": "user"}]}, "/v1/chat/completions"),
    ],
)
def test_the_path_follows_the_input(fields: dict[str, Any], path: str) -> None:
    """Prompts go to completions, messages to chat."""
    assert encode(TaskRequest(**fields), "job").path == path


@pytest.mark.parametrize(
    ("extra", "choices"),
    [({}, 1), ({"n": 1}, 1), ({"n": 3}, 3), ({"n": None}, 1), ({"n": 0}, 1), ({"n": "3"}, 3)],
)
def test_choices_are_those_asked_for(extra: dict[str, Any], choices: int) -> None:
    """The decoder waits for n ends; vLLM takes a number as text, too, and refuses what is none."""
    assert encode(TaskRequest(prompt="Hi", extra_body=extra), "job").choices == choices


def test_text_is_sent_as_utf8() -> None:
    """Escapes would only make it longer."""
    assert (
        '"Grüße, 世界 😀\u2028"'.encode()
        in encode(TaskRequest(prompt="Grüße, 世界 😀\u2028"), "job").body
    )


@given(prompt=st.text(st.characters(codec="utf-8")))
def test_any_text_arrives_as_it_was(prompt: str) -> None:
    """Quotes, control characters and line breaks included."""
    assert body(TaskRequest(prompt=prompt))["prompt"] == prompt


def nested() -> list[Any]:
    """A list deeper than any parser goes."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def circular() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = [PROMPT]
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("temperature", lambda: {"temperature": float("nan")}),
        ("extra_body.x", lambda: {"extra_body": {"x": float("inf")}}),
        ("extra_body.x", lambda: {"extra_body": {"x": [{"y": float("-inf")}]}}),
        ("extra_body.x", lambda: {"extra_body": {"x": {PROMPT}}}),
        ("extra_body.x", lambda: {"extra_body": {"x": PROMPT.encode()}}),
        ("extra_body.x", lambda: {"extra_body": {"x": {(PROMPT,): 1}}}),
        ("extra_body.x", lambda: {"extra_body": {"x": circular()}}),
        ("extra_body.x", lambda: {"extra_body": {"x": nested()}}),
        ("prompt", lambda: {"prompt": PROMPT + "\ud800"}),
        ("messages", lambda: {"prompt": None, "messages": [{"role": PROMPT + "\udfff"}]}),
        ("extra_body.x", lambda: {"extra_body": {"x": {PROMPT + "\ud800": 1}}}),
        ("extra_body.", lambda: {"extra_body": {"\ud800": 1}}),
    ],
)
def test_what_is_no_json_is_refused(name: str, make: Callable[[], dict[str, Any]]) -> None:
    """The error names the field, and quotes nothing of the prompt."""
    with pytest.raises(InvalidRequest) as error:
        encode(TaskRequest(**{"prompt": PROMPT, **make()}), "job")

    assert error.value.message.startswith(name)
    assert "cannot be written as JSON" in error.value.message
    assert PROMPT not in error.value.message
    error.value.message.encode()


# The correlation id.


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, "job"),
        ("abc-123_x.y~z", "abc-123_x.y~z"),
        ("a/b:c;d e%20", "a/b:c;d e%20"),
        ("grün", "gr%C3%BCn"),
        ("\u4e16\u754c", "%E4%B8%96%E7%95%8C"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil: 1"),
        ("\x7f", "%7F"),
    ],
)
def test_correlation_id_is_a_header(given: str | None, sent: str) -> None:
    """It is the job's id by default, and what a header cannot hold is percent-encoded."""
    assert encode(TaskRequest(prompt="Hi", correlation_id=given), "job").correlation_id == sent


# The base URL.


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000"),
        ("http://localhost:8000//v1//", "http://localhost:8000"),
        ("https://host", "https://host"),
        ("HTTPS://host", "https://host"),
        (" http://host \n", "http://host"),
        ("http://host/prefix", "http://host/prefix"),
        ("http://host/prefix/v1/", "http://host/prefix"),
        ("http://host/v1/prefix", "http://host/v1/prefix"),
        ("http://host/v10", "http://host/v10"),
        ("http://host/xv1", "http://host/xv1"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_a_base_url_is_normalised(url: str, base: str) -> None:
    """With or without / and /v1, as OpenAI users write it; another path is kept."""
    assert parse_base_url(url) == base
    assert parse_base_url(base) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "localhost",
        "//localhost:8000",
        "ftp://localhost",
        "unix:///var/run/vllm.sock",
        "http://",
        "http:///v1",
        "http://:8000",
        "http:localhost:8000",
        "http://host:port",
        "http://host:0",
        "http://host:65536",
        "http://host:-1",
        "http://[::1",
        "http://host?x=1",
        "http://host/v1#x",
        "http://ho st",
        "http://ho\x00st",
        None,
        5,
        b"http://host",
    ],
)
def test_what_is_no_base_url_is_refused(url: Any) -> None:
    """The error comes at once and names the argument."""
    with pytest.raises(InvalidRequest, match=r"^base_url: "):
        parse_base_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host",
        "http://:hunter2@host",
        "http://hunter2@host",
        "http://user:hunter2@host:x",
        "http://user:hunter2@",
        "ftp://user:hunter2@host",
        "//user:hunter2@host",
        "user:hunter2@host:8000",
        "http:/user:hunter2@host",
        "http:user:hunter2@host",
        "http://user:hunter2/x@host",
        "http://user:hunter2#x@host",
        "http://user:hunter2?x@host",
        "http://user:hunter2[@host",
        "http://user:hunter2@host\u2100",
        "http://host?api_key=hunter2",
    ],
)
def test_a_password_is_refused_and_not_repeated(url: str) -> None:
    """Credentials do not belong into a URL, and not into the error either, however broken it is."""
    with pytest.raises(InvalidRequest, match=r"^base_url: ") as error:
        parse_base_url(url)

    assert "hunter2" not in str(error.value)
