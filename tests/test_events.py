"""The four events, Metrics and Choice: what they hold, and their way through JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values_support import (
    choices,
    ends,
    facts,
    failures,
    json_values,
    metrics,
    started,
    tokens,
)

from vllm_http import (
    Choice,
    Completion,
    End,
    EngineUnavailable,
    Error,
    InvalidRequest,
    Metrics,
    Started,
    StreamingError,
    Timeout,
    Token,
    TokenEvent,
    event_from_dict,
    event_from_json,
)


STARTED = {"type": "started", "job_id": "j", "engine_version": "0.32.0", "request_id": "r"}
TOKEN = {"type": "token", "text": "Hi", "index": 0}
END = {"type": "end", "metrics": {}, "finish_reason": "stop"}
ERROR = {"type": "error", "error": {"error": "Unknown", "message": "m"}}


# Events.


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Started("j", "0.32.0", "r"), "started"),
        (Token("Hi", 0), "token"),
        (End(Metrics(), "stop"), "end"),
        (Error(StreamingError("cut")), "error"),
    ],
)
def test_each_event_says_its_type(event: TokenEvent, kind: str) -> None:
    """The key `type` leads, so that another program knows what it reads."""
    assert next(iter(event.to_dict().items())) == ("type", kind)
    assert json.loads(event.to_json()) == event.to_dict()


def test_the_fields_have_their_names() -> None:
    """The names are part of the interface."""
    end = End(Metrics(tokens_generated=2), "length", stop_reason="x", request_id="r")

    assert (Started("j", "v", "r").to_dict()) == {
        "type": "started",
        "job_id": "j",
        "engine_version": "v",
        "request_id": "r",
    }
    assert {"text": "a", "index": 3, "choice": 1, "token_ids": [5]}.items() <= (
        Token("a", 3, choice=1, token_ids=[5]).to_dict().items()
    )
    assert {"finish_reason": "length", "stop_reason": "x", "request_id": "r"}.items() <= (
        end.to_dict().items()
    )
    assert end.to_dict()["metrics"]["tokens_generated"] == 2


@given(started | tokens | ends)
def test_events_round_trip(event: Started | Token | End) -> None:
    """`event_from_dict` and `event_from_json` are the inverses."""
    assert event == event_from_json(event.to_json())
    assert event == event_from_json(event.to_json().encode())
    assert event == event_from_dict(json.loads(json.dumps(event.to_dict())))


@given(failures)
def test_errors_round_trip(event: Error) -> None:
    """An error comes back as its own class with all it carried, its partial answer included."""
    again = event_from_json(event.to_json())

    assert isinstance(again, Error)
    assert facts(event.error) == facts(again.error)
    assert event.to_dict() == again.to_dict()


def test_an_error_keeps_its_partial_answer() -> None:
    """What had come before the failure is not lost on the way."""
    partial = Completion(job_id="j", text="Hel", choices=[Choice(0, text="Hel")])
    event = Error(Timeout("silent", phase="stall", job_id="j", partial=partial))

    match event_from_json(event.to_json()):
        case Error(error=Timeout(phase="stall", partial=Completion(text="Hel") as found)):
            assert partial == found
        case other:
            pytest.fail(f"{other}")


def test_events_of_one_kind_are_equal_by_value() -> None:
    """Two tokens with the same fields are the same, a different field makes another."""
    assert Token("a", 0) == Token("a", 0)
    assert Token("a", 0) != Token("a", 1)
    assert Started("j", "v", "r") == Started("j", "v", "r")
    assert End(Metrics(), "stop") == End(Metrics(), "stop")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": "Hi", "index": 0},
        {"type": None},
        {"type": 5},
        {"type": ["end"]},
        {"type": {}},
        {"type": "tokens"},
        {"type": "Token", "text": "Hi", "index": 0},
        {"type": "started"},
        STARTED | {"job_id": 5},
        STARTED | {"engine_version": None},
        STARTED | {"more": 1},
        {"type": "token"},
        {"type": "token", "text": "Hi"},
        TOKEN | {"text": 5},
        TOKEN | {"text": None},
        TOKEN | {"index": "0"},
        TOKEN | {"index": True},
        TOKEN | {"index": 1.0},
        TOKEN | {"choice": None},
        TOKEN | {"token_ids": 5},
        TOKEN | {"token_ids": ["5"]},
        TOKEN | {"token_ids": [True]},
        TOKEN | {"logprobs": {}},
        TOKEN | {"more": 1},
        {"type": "end"},
        {"type": "end", "finish_reason": "stop"},
        END | {"metrics": None},
        END | {"metrics": []},
        END | {"metrics": {"more": 1}},
        END | {"metrics": {"tokens_generated": "5"}},
        END | {"metrics": {"tokens_generated": True}},
        END | {"metrics": {"usage_source": "guess"}},
        END | {"metrics": {"total_time_ms": "5"}},
        END | {"finish_reason": 5},
        END | {"stop_reason": []},
        END | {"choices": None},
        END | {"choices": {}},
        END | {"choices": [5]},
        END | {"choices": [{}]},
        END | {"choices": [{"index": "0"}]},
        END | {"more": 1},
        {"type": "error"},
        {"type": "error", "error": None},
        {"type": "error", "error": "Timeout"},
        {"type": "error", "error": {}},
        ERROR | {"more": 1},
        {"type": "error", "error": {"error": "ValueError", "message": "m"}},
        {"type": "error", "error": {"error": ["Unknown"], "message": "m"}},
        {"type": "error", "error": {"error": "Unknown", "message": 5}},
        {"type": "error", "error": {"error": "Unknown", "message": "m", "status": "5"}},
        {"type": "error", "error": {"error": "Unknown", "message": "m", "retriable": 5}},
        {"type": "error", "error": {"error": "Unknown", "message": "m", "partial": 5}},
        {"type": "error", "error": {"error": "Unknown", "message": "m", "partial": {"x": 1}}},
        {"type": "error", "error": {"error": "Unknown", "message": "m", "phase": "stall"}},
        {"type": "error", "error": {"error": "Timeout", "message": "m", "phase": "nap"}},
        {"type": "error", "error": {"error": "Unknown", "message": "m", "more": 1}},
    ],
    ids=json.dumps,
)
def test_what_is_no_event_is_refused(value: dict[str, Any]) -> None:
    """Wrong types, unknown keys and missing ones are `InvalidRequest`."""
    with pytest.raises(InvalidRequest):
        event_from_dict(value)
    with pytest.raises(InvalidRequest):
        event_from_json(json.dumps(value))


@pytest.mark.parametrize("value", [STARTED, TOKEN, END, ERROR], ids=lambda value: value["type"])
def test_the_least_of_each_event_is_enough(value: dict[str, Any]) -> None:
    """The refusals above are for what was changed in these."""
    assert event_from_dict(value).to_dict()["type"] == value["type"]


@pytest.mark.parametrize("value", [None, 5, "token", [], [("type", "token")]])
def test_what_is_no_dict_is_no_event(value: Any) -> None:
    """Also where the types were not checked."""
    with pytest.raises(InvalidRequest):
        event_from_dict(value)


@pytest.mark.parametrize(
    "line",
    ["", "{", "null", "[]", b"\xff", '{"type": "token"', '{"a": ' + "9" * 5000 + "}", "[" * 10**5],
    ids=lambda line: repr(line[:20]),
)
def test_what_is_no_json_is_no_event(line: str | bytes) -> None:
    """Whatever a broken sender writes is an `InvalidRequest`."""
    with pytest.raises(InvalidRequest):
        event_from_json(line)


@given(st.text() | json_values.map(json.dumps))
def test_reading_events_raises_nothing_else(line: str) -> None:
    """Any line gives an event or an `InvalidRequest`."""
    with suppress(InvalidRequest):
        event_from_json(line)


@given(
    st.sampled_from([STARTED, TOKEN, END, ERROR]),
    st.data(),
)
def test_any_value_in_any_field_is_read_or_refused(
    value: dict[str, Any], data: st.DataObject
) -> None:
    """No field's value can make the reader fail otherwise."""
    field = data.draw(st.sampled_from([key for key in value if key != "type"]))
    with suppress(InvalidRequest):
        event_from_dict(value | {field: data.draw(json_values)})


# Matching.


def test_events_match_by_name() -> None:
    """The loop of the first page works, whatever comes."""
    seen = []
    for event in (
        Started("j", "0.32.0", "r"),
        Token("Hi", 0),
        End(Metrics(tokens_generated=1), "stop"),
        Error(EngineUnavailable("gone")),
    ):
        match event:
            case Started(engine_version=version):
                seen.append(version)
            case Token(text=text, index=index):
                seen.append(f"{index}{text}")
            case End(metrics=Metrics(tokens_generated=count), finish_reason="stop"):
                seen.append(str(count))
            case Error(error=EngineUnavailable() as error):
                seen.append(str(error))

    assert seen == ["0.32.0", "0Hi", "1", "gone"]


def test_a_token_matches_by_place() -> None:
    """Text first, as it is what everyone wants."""
    match Token("Hi", 4):
        case Token(text, index):
            assert (text, index) == ("Hi", 4)


# Metrics and Choice.


def test_metrics_say_where_their_counts_come_from() -> None:
    """Unless the engine reported usage, the count is our own."""
    empty = Metrics()

    assert (empty.tokens_generated, empty.tokens_in, empty.cached_tokens) == (0, None, None)
    assert empty.usage_source == "client"
    assert (
        empty.latency_first_token_ms,
        empty.decode_time_ms,
        empty.total_time_ms,
    ) == (None, None, None)


@given(metrics, choices)
def test_metrics_and_choices_survive_in_an_end(found: Metrics, choice: Choice) -> None:
    """Nested values come back as what they were, not as dicts."""
    again = event_from_json(End(found, "stop", choices=[choice]).to_json())

    assert End(found, "stop", choices=[choice]) == again
    assert isinstance(again, End)
    assert isinstance(again.metrics, Metrics)
    assert isinstance(again.choices[0], Choice)
