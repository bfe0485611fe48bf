"""Whatever stands in a field, of a document or of a caller: refused as InvalidRequest, or taken."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vllm_http
from vllm_http import (
    Completion,
    InvalidRequest,
    RetryPolicy,
    StructuredOutputs,
    TaskRequest,
    Timeouts,
    VllmHttpAdapter,
    audio_part,
    event_from_dict,
    event_from_json,
    image_part,
    video_part,
)
from vllm_http._request import encode
from vllm_http.testing import FakeEngine


HUGE = 10**5000
"""More digits than Python prints."""


class Rude:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        return 1


def cycle() -> list[Any]:
    """A list that holds itself."""
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep(depth: int = 100_000) -> list[Any]:
    """A list deeper than any recursion goes."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


ODD: list[Any] = [
    *(10**400, -(10**400), HUGE, -HUGE, 2**63, -(2**63) - 1, 0, 1, -1, True, False, None),
    *(math.nan, math.inf, -math.inf, 1e308, 5e-324, 0.5, "", "a", "\ud800", "a\0b", "\x1b[2J", "9"),
    *(b"bytes", [], {}, (), set(), [HUGE], {"type": HUGE}, {HUGE: 1}, {"a": {"b": math.nan}}),
    *([None], [[]], [[HUGE]], [{"role": HUGE}], [{"role": "user", "content": HUGE}], {None: None}),
    *({"type": "function", "function": HUGE}, [{"type": "function", "function": {"name": HUGE}}]),
    *({"5": 10**400}, {5: HUGE}, int, object, Rude, TaskRequest, range(3), iter([])),
]


def at(position: int) -> Any:
    """By its place: hypothesis would print the whole list, and cannot."""
    return ODD[position]


odd = st.integers(0, len(ODD) - 1).map(at)
documents = st.recursive(
    odd
    | st.builds(cycle)
    | st.text(max_size=5)
    | st.integers()
    | st.floats()
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.sampled_from(["type", "function", "json", "role", "name", "schema"]).flatmap(
            lambda key: st.fixed_dictionaries({key: inner})
        )
    ),
    max_leaves=6,
)

FIELDS = [field.name for field in dataclasses.fields(TaskRequest)]


def assert_refused_or(act: Callable[[], object]) -> None:
    """What it raises is ours, and prints."""
    said = "refused"
    try:
        act()
    except InvalidRequest as refusal:
        said = str(refusal)
    assert len(said) < 3000
    assert said.isprintable(), repr(said)


def a_task(field: str, value: Any) -> TaskRequest:
    """A task with that value in that field."""
    given: dict[str, Any] = {"prompt": "Hi", field: value}
    if field in ("messages", "prompt_embeds"):
        del given["prompt"]
    return TaskRequest(**given)


def written(field: str, value: Any) -> bytes:
    """The body of a task with that value."""
    task = a_task(field, value)
    assert isinstance(repr(task), str)
    task.validate()
    return encode(task, "job").body


@pytest.fixture
def adapter() -> Iterator[VllmHttpAdapter]:
    """An adapter on a running engine."""
    with FakeEngine() as engine, VllmHttpAdapter(engine.url) as adapter:
        yield adapter


# A task.


@pytest.mark.parametrize("field", FIELDS)
def test_any_odd_value_of_a_task(field: str) -> None:
    """Made, shown, checked, written."""
    for value in (*ODD, Rude(), [Rude()], {"type": Rude()}):
        assert_refused_or(partial(written, field, value))


@settings(max_examples=500)
@given(field=st.sampled_from(FIELDS), value=documents, chat=st.booleans())
def test_any_value_of_a_task(field: str, value: Any, chat: bool) -> None:
    """The same, with whatever hypothesis finds; a chat's own fields are checked for a chat only."""

    def act() -> None:
        body = {"messages": [{"role": "user", "content": "Hi"}]} if chat else {"prompt": "Hi"}
        task = TaskRequest(**{**body, field: value})
        assert isinstance(repr(task), str)
        task.validate()
        encode(task, "job")

    assert_refused_or(act)


@settings(max_examples=300)
@given(first=st.sampled_from(FIELDS), second=st.sampled_from(FIELDS), one=odd, other=odd)
@example(first="min_tokens", second="max_tokens", one=HUGE, other=1)
@example(first="n", second="temperature", one=HUGE, other=0)
@example(first="tools", second="tool_choice", one=[{"type": 1, "function": 1}], other="a")
def test_any_two_values_of_a_task(first: str, second: str, one: Any, other: Any) -> None:
    """The rules between fields print what they refuse, too."""
    given = {"prompt": "Hi", first: one, second: other}

    assert_refused_or(lambda: TaskRequest(**given).validate())
    assert_refused_or(lambda: TaskRequest.from_dict(given))


def test_deep_and_endless_values_of_a_task() -> None:
    """Neither is JSON; each field says so for itself."""
    for field in FIELDS:
        for value in (deep(), {"type": deep()}, cycle(), [cycle()]):
            with pytest.raises(InvalidRequest):
                written(field, value)


NUMBERS = ("repetition_penalty", "logit_bias", "n", "length_penalty", "seed", "top_k", "max_tokens")


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [10**400, HUGE], ids=["400 digits", "5000 digits"])
def test_map_goes_on_after_a_monstrous_number(
    adapter: VllmHttpAdapter, field: str, value: int
) -> None:
    """It is that task's failure, and the next one has its answer."""
    bad = a_task(field, {"5": value} if field == "logit_bias" else value)

    first, second = adapter.map([bad, TaskRequest(prompt="Hi", max_tokens=1)])

    assert isinstance(first.error, InvalidRequest)
    assert field in first.error.message
    assert second.finish_reason == "length"


def test_map_goes_on_after_what_is_no_task(adapter: VllmHttpAdapter) -> None:
    """Each has a completion that says so."""
    things: list[Any] = [*ODD, Rude(), deep()]

    completions = list(adapter.map(things))

    assert {type(completion.error) for completion in completions} == {InvalidRequest}
    assert len(completions) == len(ODD) + 2


# Documents.

VALUES: list[Any] = [
    value
    for name in vllm_http.__all__
    if hasattr(value := getattr(vllm_http, name), "from_dict") and dataclasses.is_dataclass(value)
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_any_odd_value_of_a_document(value: Any) -> None:
    """Each field of each value that is read from JSON."""
    for field in dataclasses.fields(value):
        for thing in ODD:
            with contextlib.suppress(InvalidRequest):
                value.from_dict({field.name: thing})
    for thing in (*ODD, Rude(), cycle()):
        assert_refused_or(partial(value.from_dict, thing))


@settings(max_examples=300)
@given(data=st.data())
def test_any_document(data: st.DataObject) -> None:
    """Of every kind that is read from a dict, with some of its fields and perhaps another one."""
    kind = data.draw(st.sampled_from(VALUES))
    names = st.sampled_from([field.name for field in dataclasses.fields(kind)]) | st.text()
    document = data.draw(st.dictionaries(names, documents, max_size=4))

    assert_refused_or(lambda: kind.from_dict(document))


@settings(max_examples=300)
@given(data=st.data())
def test_any_event(data: st.DataObject) -> None:
    """Of the four types, or of none."""
    kind = data.draw(st.sampled_from(["started", "token", "end", "error"]) | documents)
    names = st.sampled_from(["text", "index", "error", "metrics", "choices", "job_id", "info"])
    document = data.draw(st.dictionaries(names | st.text(), documents, max_size=4))

    assert_refused_or(lambda: event_from_dict({"type": kind, **document}))


TEXTS = ["9" * 5000, "[" * 100_000, '{"a":' * 100_000, "1e999", "NaN", '"\\ud800"', "\ud800", "\0"]


@pytest.mark.parametrize("position", range(len(TEXTS)))
def test_odd_json(position: int) -> None:
    """As the whole document, and as a field."""
    text = TEXTS[position]

    for document in (text, f'{{"n": {text}}}', f'{{"type": {text}}}', f'{{"error": {text}}}'):
        for reader in (TaskRequest.from_json, Completion.from_json, event_from_json):
            assert_refused_or(partial(reader, document))


# The other constructors.


@settings(max_examples=300)
@given(data=st.data())
def test_any_limit(data: st.DataObject) -> None:
    """Of the clocks, the retries, structured outputs and media."""
    kind: Any = data.draw(st.sampled_from([Timeouts, RetryPolicy, StructuredOutputs]))
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(kind)]))
    value = data.draw(documents)

    assert_refused_or(lambda: kind(**{name: value}))


OPTIONS = (
    *("base_url", "api_key", "timeouts", "retry", "max_concurrency", "max_pending", "queue_size"),
    *("max_event_bytes", "headers", "proxies", "trust_env", "verify", "cert", "pool_id"),
    "replica_id",
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(OPTIONS), value=documents)
def test_any_option(name: str, value: Any) -> None:
    """Of an adapter."""

    def act() -> None:
        VllmHttpAdapter(**{"base_url": "http://127.0.0.1:1", name: value}).close()

    assert_refused_or(act)


ARGUMENTS: dict[str, Callable[[VllmHttpAdapter, Any], object]] = {
    "embed": lambda adapter, value: adapter.embed(value),
    "embed, model": lambda adapter, value: adapter.embed([], model=value),
    "embed, dimensions": lambda adapter, value: adapter.embed([1, HUGE], dimensions=value),
    "score": lambda adapter, value: adapter.score(value, [HUGE]),  # type: ignore[list-item]
    "rerank": lambda adapter, value: adapter.rerank("q", [HUGE], top_n=value),  # type: ignore[list-item]
    "rerank, documents": lambda adapter, value: adapter.rerank("", value, top_n=0),
    "tokenize": lambda adapter, value: adapter.tokenize(value, timeout=HUGE),
    "tokenize, messages": lambda adapter, value: adapter.tokenize(messages=value, timeout=HUGE),
    "detokenize": lambda adapter, value: adapter.detokenize(value, timeout=HUGE),
    "timeout": lambda adapter, value: adapter.embed([], timeout=value),
    "extra_body": lambda adapter, value: adapter.tokenize("", extra_body=value, timeout=HUGE),
    "in_flight": lambda adapter, value: adapter.map([], in_flight=value),
    "submit": lambda adapter, value: adapter.submit(value),
    "timeouts": lambda adapter, value: adapter.submit(
        TaskRequest(prompt="", n=HUGE), timeouts=value
    ),
    "image_part": lambda adapter, value: image_part(value, max_bytes=HUGE),
    "image_part, uuid": lambda adapter, value: image_part(b"x", uuid=value),
    "audio_part": lambda adapter, value: audio_part(value),
    "video_part, max_bytes": lambda adapter, value: video_part(b"x", max_bytes=value),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_any_argument(adapter: VllmHttpAdapter, name: str) -> None:
    """Of every call."""

    @settings(max_examples=60, deadline=None)
    @given(value=documents)
    def check(value: Any) -> None:
        assert_refused_or(lambda: ARGUMENTS[name](adapter, value))

    check()


def test_a_refused_value_is_json_too(adapter: VllmHttpAdapter) -> None:
    """The completion of a refused task travels like any other."""
    (completion,) = adapter.map([TaskRequest(prompt="Hi", n=HUGE)])

    assert Completion.from_dict(json.loads(completion.to_json())).error is not None
