"""TaskRequest as a value: when it is read, and its way through JSON."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values_support import json_values, names, text

from vllm_http import InvalidRequest, TaskRequest, VllmHttpAdapter
from vllm_http.testing import FakeEngine


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


# The value.


def test_fields_are_keyword_only() -> None:
    """A positional argument would break as fields are added."""
    with pytest.raises(TypeError):
        TaskRequest("Hello")  # type: ignore[arg-type, call-arg]


def test_nothing_is_checked_by_the_constructor() -> None:
    """A task may be filled in bit by bit; `submit` checks it."""
    task = TaskRequest()
    task.prompt = "Hello"

    task.validate()


def test_tasks_share_no_extra_body() -> None:
    """A default dict belongs to one task alone."""
    first, second = TaskRequest(prompt="a"), TaskRequest(prompt="b")
    first.extra_body["n"] = 2

    assert second.extra_body == {}


def test_seed_zero_is_sent(adapter: VllmHttpAdapter, engine: FakeEngine) -> None:
    """0 is a seed like any other, and so is a temperature of 0."""
    adapter.submit(TaskRequest(prompt="Hello", max_tokens=1, seed=0, temperature=0)).result(10)

    (request,) = [one for one in engine.requests if one.method == "POST"]
    assert request.json["seed"] == 0
    assert request.json["temperature"] == 0


def test_keys_that_are_numbers_are_sent_as_text(
    adapter: VllmHttpAdapter, engine: FakeEngine
) -> None:
    """Token ids are the natural keys of a logit_bias, and JSON's keys are text."""
    bias = {"logit_bias": {50256: -100}}
    adapter.submit(TaskRequest(prompt="Hello", max_tokens=1, extra_body=bias)).result(10)

    (request,) = [one for one in engine.requests if one.method == "POST"]
    assert request.json["logit_bias"] == {"50256": -100}


def test_a_task_is_read_at_submit(adapter: VllmHttpAdapter, engine: FakeEngine) -> None:
    """Changes to a task that waits for its turn do nothing."""
    task = TaskRequest(messages=[{"role": "user", "content": "before"}], max_tokens=1)
    with adapter.submit(TaskRequest(prompt="first", max_tokens=1000)) as first:
        engine.wait_for_requests(1, path="/v1/completions")
        second = adapter.submit(task)
        assert task.messages is not None
        task.messages[0]["content"] = "after"
        task.max_tokens = 7
        task.extra_body["n"] = 3
        first.cancel()
    second.result(10)

    (request,) = [one for one in engine.requests if one.route == "/v1/chat/completions"]
    assert request.json["messages"][0]["content"] == "before"
    assert request.json["max_tokens"] == 1
    assert "n" not in request.json


# JSON.


valid_tasks = st.builds(
    lambda source, fields: TaskRequest(**source, **fields),
    st.fixed_dictionaries({"prompt": text.filter(bool) | st.lists(st.integers(0, 9), min_size=1)})
    | st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": names, "content": json_values}), min_size=1
            )
        }
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "model": names,
            "max_tokens": st.integers(1, INT64 - 1),
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0.001, 1),
            "seed": st.integers(-INT64, INT64 - 1),
            "session_id": names,
            "deadline_ms": st.integers(1, 10**9),
            "priority": st.integers(-9, 9),
            "correlation_id": names,
            "job_id": names,
            "extra_body": st.dictionaries(st.sampled_from(["stop", "n", "x"]), json_values),
        },
    ),
)


@given(valid_tasks)
def test_json_round_trip(task: TaskRequest) -> None:
    """`from_json` is the inverse of `to_json`, so that a task travels through Celery."""
    assert task == TaskRequest.from_json(task.to_json())
    assert task == TaskRequest.from_dict(json.loads(json.dumps(task.to_dict())))
    assert task == pickle.loads(pickle.dumps(task))


def test_missing_keys_take_their_defaults() -> None:
    """A sender need only write what it means."""
    assert TaskRequest(prompt="Hello") == TaskRequest.from_json('{"prompt": "Hello"}')


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": True},
        {"max_tokens": "5"},
        {"max_tokens": 5.0},
        {"max_tokens": [5]},
        {"temperature": "0.7"},
        {"temperature": True},
        {"top_p": "1"},
        {"seed": False},
        {"seed": "42"},
        {"seed": 1.5},
        {"session_id": 5},
        {"deadline_ms": True},
        {"deadline_ms": "100"},
        {"priority": "high"},
        {"priority": True},
        {"correlation_id": 7},
        {"job_id": 7},
        {"job_id": ["a"]},
        {"model": 5},
        {"model": ["m"]},
        {"prompt": 5},
        {"prompt": {"a": 1}},
        {"prompt": ["a", 1]},
        {"prompt": [True]},
        {"prompt": [1.0]},
        {"prompt": [[1], 1]},
        {"prompt": None, "messages": {"role": "user"}},
        {"prompt": None, "messages": "Hello"},
        {"prompt": None, "messages": ["Hello"]},
        {"prompt": None, "messages": [[]]},
        {"extra_body": None},
        {"extra_body": []},
        {"extra_body": "n"},
    ],
    ids=json.dumps,
)
def test_from_json_refuses_wrong_types(value: dict[str, Any]) -> None:
    """Nothing is converted: what has the wrong type is a bug of the sender."""
    field = [*value][-1]
    with pytest.raises(InvalidRequest, match=rf"^{field}"):
        TaskRequest.from_json(json.dumps({"prompt": "Hello", **value}))


def test_from_json_refuses_unknown_keys() -> None:
    """A misspelt field is not silently dropped."""
    with pytest.raises(InvalidRequest, match="max_token:"):
        TaskRequest.from_json('{"prompt": "Hello", "max_token": 5}')


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "null",
        "5",
        '"Hello"',
        "[]",
        '[["prompt", "Hello"]]',
        "{}",
        '{"prompt": "Hello", "max_tokens": 0}',
        '{"prompt": "Hello", "temperature": NaN}',
        '{"prompt": "Hello", "temperature": 1e400}',
        b'{"prompt": "\xff"}',
        '{"prompt": "Hello", "seed": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
    ids=lambda line: repr(line[:40]),
)
def test_from_json_refuses_what_is_no_task(line: str | bytes) -> None:
    """Whatever a broken sender writes is an `InvalidRequest`."""
    with pytest.raises(InvalidRequest):
        TaskRequest.from_json(line)


@pytest.mark.parametrize("value", [None, 5, "Hello", [], [("prompt", "Hello")], {1: 2}])
def test_from_dict_refuses_what_is_no_dict(value: Any) -> None:
    """As `from_json` does."""
    with pytest.raises(InvalidRequest):
        TaskRequest.from_dict(value)


@given(st.text() | st.binary() | json_values.map(json.dumps))
def test_from_json_raises_nothing_else(line: str | bytes) -> None:
    """Any input gives a task or an `InvalidRequest`."""
    with suppress(InvalidRequest):
        TaskRequest.from_json(line)


def test_a_task_from_json_does_what_it_says(adapter: VllmHttpAdapter, engine: FakeEngine) -> None:
    """The worker at the other end of a queue sends the same body."""
    task = TaskRequest(prompt=[1, 2], max_tokens=1, seed=0, extra_body={"n": 1})
    for one in (task, TaskRequest.from_json(task.to_json())):
        adapter.submit(one).result(10)

    first, second = (request.body for request in engine.requests if request.method == "POST")
    assert first == second
