"""TaskRequest: its limits, all of which `submit` checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vllm_http import InvalidRequest, TaskRequest, VllmHttpAdapter
from vllm_http.testing import FakeEngine


CHAT = [{"role": "user", "content": "Hello"}]
INT64 = 2**63


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def adapter(engine: FakeEngine) -> Iterator[VllmHttpAdapter]:
    """An adapter of that engine that runs one task at a time."""
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        yield adapter


def refusal(adapter: VllmHttpAdapter, **fields: Any) -> str:
    """What `submit` says when it refuses a task with these fields."""
    with pytest.raises(InvalidRequest) as caught:
        adapter.submit(TaskRequest(**fields))
    return str(caught.value)


def completions(engine: FakeEngine) -> int:
    """How many completions requests reached the engine."""
    return sum(request.route.endswith("/completions") for request in engine.requests)


# Limits.


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("max_tokens", 0, "1"),
        ("max_tokens", -5, "1"),
        ("max_tokens", True, "1"),
        ("max_tokens", 2.0, "1"),
        ("max_tokens", "7", "1"),
        ("temperature", -0.1, "2"),
        ("temperature", 2.1, "2"),
        ("temperature", float("nan"), "2"),
        ("temperature", float("inf"), "2"),
        ("temperature", False, "2"),
        ("temperature", "0.7", "2"),
        ("top_p", 0, "1"),
        ("top_p", 1.5, "1"),
        ("top_p", float("nan"), "1"),
        ("top_p", True, "1"),
        ("seed", INT64, str(INT64 - 1)),
        ("seed", -INT64 - 1, str(INT64 - 1)),
        ("seed", True, str(INT64 - 1)),
        ("seed", 1.0, str(INT64 - 1)),
        ("seed", "42", str(INT64 - 1)),
        ("deadline_ms", 0, "1"),
        ("deadline_ms", -1, "1"),
        ("deadline_ms", 10**12 + 1, "1000000000000"),
        ("deadline_ms", True, "1"),
        ("deadline_ms", "50", "1"),
        ("priority", True, "whole"),
        ("priority", 0.5, "whole"),
        ("priority", INT64, str(INT64 - 1)),
        ("model", "", "1"),
        ("model", 5, "text"),
        ("job_id", "", "1"),
        ("job_id", 5, "text"),
        ("session_id", "", "1"),
        ("session_id", 5, "text"),
        ("correlation_id", "", "1"),
        ("correlation_id", 5, "text"),
    ],
)
def test_submit_refuses_what_is_out_of_limits(
    adapter: VllmHttpAdapter, engine: FakeEngine, field: str, value: Any, limit: str
) -> None:
    """The field, its value and the limit are named, and nothing goes to the engine."""
    said = refusal(adapter, prompt="Hello", **{field: value})

    assert said.startswith(field)
    assert repr(value) in said
    assert limit in said
    assert completions(engine) == 0


@pytest.mark.parametrize(
    "value",
    [
        *("", [], 5, True, ("a",), b"bytes", {}),
        *([1, -1], [True], [1.0], [1, "a"], [1, [1]]),
        *(["one", ""], ["one", 1], ["one", [1]], ["one", None]),
        *([[1], []], [[1], [-1]], [[1], "one"], [[1], 1], [["one"]], [[[1]]]),
    ],
)
def test_submit_refuses_a_prompt_that_is_none(adapter: VllmHttpAdapter, value: Any) -> None:
    """A prompt is text, token ids or a list of either, and nowhere empty."""
    assert refusal(adapter, prompt=value).startswith("prompt")


@pytest.mark.parametrize("value", [[], {}, "Hello", 5, ["Hello"], [None], [{}], [{1: "Hello"}]])
def test_submit_refuses_messages_that_are_none(adapter: VllmHttpAdapter, value: Any) -> None:
    """Messages are a list of dicts with a role, and not empty."""
    assert refusal(adapter, messages=value).startswith("messages")


@pytest.mark.parametrize("value", ["n=2", [1], None, 5])
def test_submit_refuses_an_extra_body_that_is_none(adapter: VllmHttpAdapter, value: Any) -> None:
    """It is a dict, if an empty one."""
    said = refusal(adapter, prompt="Hello", extra_body=value)

    assert said.startswith("extra_body")
    assert "dict" in said


@pytest.mark.parametrize("fields", [{}, {"prompt": "Hello", "messages": CHAT}])
def test_submit_wants_one_of_prompt_and_messages(
    adapter: VllmHttpAdapter, fields: dict[str, Any]
) -> None:
    """Neither is refused, and so are both."""
    said = refusal(adapter, **fields)

    assert "prompt" in said
    assert "messages" in said


@pytest.mark.parametrize("field", ["job_id", "session_id", "correlation_id"])
@pytest.mark.parametrize("control", ["\r", "\n", "\0", "\t", "\x1b", "\x7f", "\x85"])
def test_ids_hold_no_control_characters(adapter: VllmHttpAdapter, field: str, control: str) -> None:
    """They go into headers and logs, so a line end in one would forge a line there."""
    said = refusal(adapter, prompt="Hello", **{field: f"a{control}b"})

    assert said.startswith(field)
    assert control not in said


@pytest.mark.parametrize("field", ["job_id", "session_id", "correlation_id"])
@pytest.mark.parametrize("value", [" a", "a ", "naïve", "日本", "a b", "x" * 1000])
def test_other_ids_are_accepted_or_refused_at_once(
    adapter: VllmHttpAdapter, field: str, value: str
) -> None:
    """An id never makes a task fail later on the wire."""
    task = TaskRequest(prompt="Hello", max_tokens=1, **{field: value})  # type: ignore[arg-type]
    try:
        stream = adapter.submit(task)
    except InvalidRequest:
        return

    assert stream.result(10).finish_reason == "length"


@pytest.mark.parametrize("owned", ["stream", "stream_options", "prompt", "messages"])
def test_extra_body_does_not_set_what_the_adapter_owns(
    adapter: VllmHttpAdapter, owned: str
) -> None:
    """Whatever value it has."""
    assert owned in refusal(adapter, prompt="Hello", extra_body={owned: None})


def test_extra_body_does_not_repeat_a_field(adapter: VllmHttpAdapter) -> None:
    """Which of the two would count?"""
    said = refusal(adapter, prompt="Hello", max_tokens=5, extra_body={"max_tokens": 6})

    assert "extra_body" in said
    assert "max_tokens" in said


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", float("nan"), float("inf"), [float("-inf")], "\ud800"],
    ids=["object", "set", "bytes", "nan", "inf", "-inf in a list", "surrogate"],
)
def test_extra_body_is_json(adapter: VllmHttpAdapter, value: Any) -> None:
    """What JSON cannot say is refused by `submit`, not met by a worker."""
    assert refusal(adapter, prompt="Hello", extra_body={"x": value}).startswith("extra_body")


def test_extra_body_that_contains_itself_is_refused(adapter: VllmHttpAdapter) -> None:
    """A circle has no JSON."""
    circle: dict[str, Any] = {}
    circle["x"] = circle

    assert refusal(adapter, prompt="Hello", extra_body=circle).startswith("extra_body")


@pytest.mark.parametrize(
    "content", ["\udfff", float("nan"), object()], ids=["surrogate", "nan", "object"]
)
def test_messages_are_json(adapter: VllmHttpAdapter, content: Any) -> None:
    """What JSON cannot say is refused by `submit`, not met by a worker."""
    messages = [{"role": "user", "content": content}]

    assert refusal(adapter, messages=messages).startswith("messages")


@pytest.mark.parametrize("field", ["prompt", "model", "job_id", "session_id", "correlation_id"])
def test_lone_surrogates_are_refused(adapter: VllmHttpAdapter, field: str) -> None:
    """Half a character cannot be sent as UTF-8."""
    assert refusal(adapter, **{"prompt": "Hello", field: "a\ud800"}).startswith(field)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "HUSH", "messages": [{"role": "user", "content": "HUSH"}]},
        {"prompt": ["HUSH", 1]},
        {"prompt": [["HUSH"]]},
        {"prompt": ["HUSH", ["HUSH"]]},
        {"prompt": b"HUSH"},
        {"prompt": "HUSH \ud800"},
        {"prompt": "HUSH", "max_tokens": 0},
        {"messages": "HUSH"},
        {"messages": ["HUSH"]},
        {"messages": [{"content": "HUSH"}]},
        {"messages": [{"role": "user", "content": {"HUSH"}}]},
        {"prompt": "x", "extra_body": {"suffix": {"HUSH"}}},
        {"prompt": "x", "extra_body": {"prompt": "HUSH"}},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_refusals_hold_no_prompt(adapter: VllmHttpAdapter, fields: dict[str, Any]) -> None:
    """Errors go into logs, and prompts must not."""
    assert "HUSH" not in refusal(adapter, **fields)


def test_a_refusal_of_a_huge_value_is_short(adapter: VllmHttpAdapter) -> None:
    """A message stays fit for a log line."""
    assert len(refusal(adapter, prompt="Hello", temperature="x" * 100_000)) < 4096


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 1},
        {"temperature": 0, "seed": 0},
        {"temperature": 2.0, "top_p": 1},
        {"seed": INT64 - 1},
        {"seed": -INT64},
        {"priority": -3},
        {"deadline_ms": 60_000},
        {"extra_body": {"stop": ["."], "n": 1}},
    ],
    ids=str,
)
def test_limits_themselves_are_allowed(adapter: VllmHttpAdapter, fields: dict[str, Any]) -> None:
    """What lies within the limits is sent."""
    task = TaskRequest(**{"prompt": "Hello", "max_tokens": 2, **fields})

    assert adapter.submit(task).result(10).finish_reason in {"length", "stop"}


def test_validate_says_what_submit_would_say(adapter: VllmHttpAdapter) -> None:
    """A web view can refuse a task before it queues it."""
    with pytest.raises(InvalidRequest) as caught:
        TaskRequest(prompt="Hello", max_tokens=0).validate()

    assert refusal(adapter, prompt="Hello", max_tokens=0) == str(caught.value)


def test_repr_tells_what_is_set_but_not_what_is_said() -> None:
    """A task is soon in a log or a traceback."""
    task = TaskRequest(prompt="HUSH", model="m", extra_body={"suffix": "HUSH"}, temperature=0)

    assert repr(task) == (
        "TaskRequest(temperature=0, prompt=<str of 4>, model='m', extra_body=<dict of 1>)"
    )
    assert repr(TaskRequest(messages=CHAT)) == "TaskRequest(messages=<list of 1>)"
    assert repr(TaskRequest(prompt=5)) == "TaskRequest(prompt=<int>)"  # type: ignore[arg-type]
