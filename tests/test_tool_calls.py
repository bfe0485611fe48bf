"""Tool calls out of their pieces, in all the ways in which servers number and name these."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from decoding import DONE, decoder, delta, verdict
from hypothesis import given
from hypothesis import strategies as st
from wire import cuts

from vllm_http import Choice, Completion, Token, ToolCall
from vllm_http._collector import Collector


PARIS, TOKYO = '{"city": "Paris"}', '{"city": "Tokyo"}'


def piece(arguments: str | None = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    """A piece of a call; what is not given is not there."""
    function = {"name": name, "arguments": arguments}
    return {"function": {k: v for k, v in function.items() if v is not None}, **more}


def made(*events: bytes, finish: str = "tool_calls") -> list[ToolCall]:
    """The calls of an answer with these events; what its tokens amount to says the same."""
    stream = decoder()
    tokens = [token for event in events for token in stream.feed(event)]
    stream.feed(delta(finish) + DONE)
    assert verdict(stream) is None
    calls = stream.choices[0].tool_calls
    assert [(c.id, c.name, c.arguments) for c in by_tokens(tokens)] == [
        (c.id, c.name, c.arguments) for c in calls
    ]
    return calls


def by_tokens(tokens: list[Token]) -> list[ToolCall]:
    """The calls as a caller puts them together who goes by `ToolCallDelta.index` alone."""
    calls: list[ToolCall] = []
    for one in (one for token in tokens for one in token.tool_calls or ()):
        if one.index == len(calls):
            calls.append(ToolCall())
        call = calls[one.index]
        call.id += one.id or ""
        call.name += one.name or ""
        call.arguments += one.arguments
    return calls


def brief(calls: list[ToolCall]) -> list[tuple[str, str, Any]]:
    """Id, name and arguments of each."""
    return [(call.id, call.name, call.parsed()) for call in calls]


TWO = [("a", "weather", {"city": "Paris"}), ("b", "time", {"city": "Tokyo"})]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [
                delta(tool_calls=[piece(PARIS, "weather", index=0, id="a")]),
                delta(tool_calls=[piece(TOKYO, "time", index=0, id="b")]),
            ],
            id="all have index 0",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece("", "weather", index=0, id="a")]),
                delta(tool_calls=[piece(PARIS[:5], index=0)]),
                delta(tool_calls=[piece(PARIS[5:], index=0)]),
                delta(tool_calls=[piece("", "time", index=0, id="b")]),
                delta(tool_calls=[piece(TOKYO, index=0)]),
            ],
            id="all have index 0, in pieces",
        ),
        pytest.param(
            [
                delta(
                    tool_calls=[
                        piece(PARIS, "weather", index=0, id="a"),
                        piece(TOKYO, "time", index=0, id="b"),
                    ]
                )
            ],
            id="all have index 0, in one event",
        ),
        pytest.param(
            [delta(tool_calls=[piece(PARIS, "weather", id="a"), piece(TOKYO, "time", id="b")])],
            id="no index, in one event",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece(PARIS[:5], "weather", id="a")]),
                delta(tool_calls=[piece(PARIS[5:])]),
                delta(tool_calls=[piece(TOKYO, "time", id="b")]),
            ],
            id="no index, in pieces",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece("", "weather", id="a"), piece("", "time", id="b")]),
                delta(tool_calls=[piece(TOKYO, id="b"), piece(PARIS, id="a")]),
            ],
            id="no index, but the id on each piece",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece(PARIS[:5], "weather", index=1, id="a")]),
                delta(tool_calls=[piece(TOKYO[:5], "time", index=2, id="b")]),
                delta(tool_calls=[piece(PARIS[5:], index=1), piece(TOKYO[5:], index=2)]),
            ],
            id="counted from 1, interleaved",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece(PARIS[:5], "weather", index=0, id="a")]),
                delta(tool_calls=[piece(PARIS[5:], "weather", index=0, id="a")]),
                delta(tool_calls=[piece(TOKYO, "time", index=1, id="b")]),
            ],
            id="id and name on each piece",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece("", "weather", index=0, id="a")]),
                delta(tool_calls=[piece(PARIS[:5], index=0, id="x")]),
                delta(tool_calls=[piece(PARIS[5:], "", index=0, id="y")]),
                delta(tool_calls=[piece(TOKYO, "time", index=1, id="b")]),
            ],
            id="a new id on each piece, as early versions of vLLM have it",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece("", "weather", index=0, id="a")]),
                delta(tool_calls=[piece(PARIS[:5], index=1)]),
                delta(tool_calls=[piece(PARIS[5:], index=2)]),
                delta(tool_calls=[piece(TOKYO, "time", index=3, id="b")]),
            ],
            id="an index of its own for each piece",
        ),
        pytest.param(
            [
                delta(
                    tool_calls=[
                        {"id": "a", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
                    ]
                ),
                delta(tool_calls=[piece(TOKYO, "time", id="b")]),
            ],
            id="arguments that are an object",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece({}, "weather", index=0, id="a")]),  # type: ignore[arg-type]
                delta(tool_calls=[piece(PARIS, index=0)]),
                delta(tool_calls=[piece(TOKYO, "time", index=1, id="b")]),
            ],
            id="an empty object before the arguments",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece(None, "wea", index=0, id="a")]),
                delta(tool_calls=[piece(None, "ther", index=0)]),
                delta(tool_calls=[piece(PARIS, index=0)]),
                delta(tool_calls=[piece(None, "ti", id="b"), None, piece(None, None, id="b")]),
                delta(tool_calls=[piece(None, "me", id="b")]),
                delta(tool_calls=[piece(TOKYO, "time", id="b")]),
            ],
            id="names in parts",
        ),
        pytest.param(
            [
                delta(tool_calls=[piece(None, "we", index=0, id="a")]),
                delta(tool_calls=[piece(None, "weather", index=0, id="a")]),
                delta(tool_calls=[piece(PARIS, "weather", index=0, id="a")]),
                delta(tool_calls=piece(TOKYO[:5], "time", index=1, id="b")),
                delta(tool_calls=piece(TOKYO[5:], index=1)),
            ],
            id="a name that grows, and an object in place of the list",
        ),
    ],
)
def test_each_piece_goes_to_its_call(events: list[bytes]) -> None:
    """A differing id with a name begins a call; what has neither goes on with the last."""
    calls = made(*events)

    assert brief(calls) == TWO
    assert all(call.complete for call in calls)


def test_calls_without_ids_are_told_apart_by_what_they_are() -> None:
    """Another name is another call, and so is more for one whose arguments are whole."""
    events = [
        delta(tool_calls=[piece(PARIS[:5], "weather", index=0)]),
        delta(tool_calls=[piece(PARIS[5:], "weather", index=0)]),
        delta(tool_calls=[piece(TOKYO, "weather", index=0)]),
        delta(tool_calls=[piece("{}", "time", index=0)]),
    ]

    assert brief(made(*events)) == [
        ("", "weather", {"city": "Paris"}),
        ("", "weather", {"city": "Tokyo"}),
        ("", "time", {}),
    ]


@pytest.mark.parametrize("same", [{}, {"index": 0}, {"id": "x"}, {"id": ""}], ids=str)
def test_names_in_one_event_are_calls_of_their_own(same: dict[str, Any]) -> None:
    """A whole answer has no indexes, and some servers no ids; the model may ask twice alike."""
    calls = made(
        delta(tool_calls=[piece(PARIS, "weather", **same), piece(TOKYO, "weather", **same)])
    )
    twice = made(delta(tool_calls=[piece("", "now"), piece("", "now")]))

    assert [call.parsed()["city"] for call in calls] == ["Paris", "Tokyo"]
    assert [call.complete for call in twice] == [True, True]


def test_a_number_as_id_is_its_text() -> None:
    """The id goes back in the tool's answer, where vLLM wants text."""
    (call,) = made(delta(tool_calls=[piece("{}", "f", index=0, id=0)]))

    assert call.id == "0"


@pytest.mark.parametrize("empty", ["", None, {}])
def test_a_piece_that_says_nothing_is_none(empty: Any) -> None:
    """Neither content nor a call."""
    stream = decoder()

    assert stream.feed(delta(tool_calls=[{"index": 0, "id": "", "function": empty}])) == []
    assert (stream.begun, stream.choices[0].tool_calls) == (False, [])


def test_the_function_call_of_old_is_a_tool_call() -> None:
    """Some gateways keep to OpenAI's form from before there were tools."""
    events = [
        delta(function_call={"name": "weather", "arguments": ""}),
        delta(function_call={"arguments": PARIS[:5]}),
        delta(function_call={"arguments": PARIS[5:]}),
    ]

    assert brief(made(*events, finish="function_call")) == [("", "weather", {"city": "Paris"})]


# Several choices, any number of calls, and cuts anywhere.

calls_of_a_choice = st.lists(
    st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.text(max_size=3), st.integers())),
    max_size=3,
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[list[tuple[str, str, Any]]]]:
    """A stream of two choices' calls, numbered in one of the ways, and what it says."""
    style = draw(st.sampled_from(["counted", "zero", "none"]))
    said = []
    events = b""
    for choice in range(2):
        expected = []
        for number, (name, value) in enumerate(draw(calls_of_a_choice)):
            id = f"call-{choice}-{number}"
            expected.append((id, name, value))
            text = json.dumps(value)
            at = draw(st.integers(0, len(text)))
            styles: dict[str, dict[str, Any]] = {"counted": {"index": number}, "zero": {"index": 0}}
            index = styles.get(style, {})
            for one in (piece(text[:at], name, id=id, **index), piece(text[at:], **index)):
                line = json.dumps({"choices": [{"index": choice, "delta": {"tool_calls": [one]}}]})
                events += b"data: " + line.encode() + b"\n\n"
        said.append(expected)
    return events, said


@given(streams(), st.data())
def test_calls_are_what_was_said_however_the_stream_is_cut(
    stream: tuple[bytes, list[list[tuple[str, str, Any]]]], data: st.DataObject
) -> None:
    """In each choice, whole and in order, for those who iterate as for those who collect."""
    events, said = stream
    parts, collector = decoder(choices=2), Collector("job")
    tokens = [token for part in data.draw(cuts(events)) for token in parts.feed(part)]
    for token in tokens:
        collector.take(token)

    for choice, expected in enumerate(said):
        known = {one.index: one for one in parts.choices}.get(choice)
        assert brief(known.tool_calls if known else []) == expected
        mine = by_tokens([token for token in tokens if token.choice == choice])
        assert [(call.id, call.name) for call in mine] == [one[:2] for one in expected]
        kept = {one.index: one for one in collector.completion().choices}.get(choice)
        assert brief(kept.tool_calls if kept else []) == expected


# Without arguments.


@pytest.mark.parametrize("arguments", ["", " ", None, "null", {}, "absent"])
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_a_call_without_arguments_is_complete(arguments: Any, finish: str) -> None:
    """vLLM itself streams "" for a function that takes none, and "null" where its model did."""
    function: dict[str, Any] = {"name": "now", "arguments": arguments}
    if arguments == "absent":
        del function["arguments"]
    event = delta(tool_calls=[{"index": 0, "id": "a", "function": function}])

    (call,) = made(event, finish=finish)

    assert (call.complete, call.parsed()) == (True, {})
    sent = Completion("job", choices=[Choice(0, tool_calls=[call])]).message()
    assert sent["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


@pytest.mark.parametrize(
    "nameless",
    [
        {"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}},
        {"id": "a", "name": "f", "arguments": "{}"},
        {"id": "a", "function": {"arguments": "{}"}},
    ],
    ids=str,
)
def test_a_call_without_a_name_is_not_complete(nameless: dict[str, Any]) -> None:
    """In a form that is not read, nobody can carry it out."""
    (call,) = made(delta(tool_calls=[{"index": 0, **nameless}]))

    assert (call.id, call.name, call.complete) == ("a", "", False)


@pytest.mark.parametrize("finish", ["length", "abort", None])
@pytest.mark.parametrize("arguments", ["", None])
def test_a_call_that_ends_behind_its_name_is_not_complete(
    finish: str | None, arguments: str | None
) -> None:
    """Whether it has arguments is known only once the model has ended."""
    stream = decoder()
    stream.feed(delta(tool_calls=[piece(arguments, "now", index=0, id="a")]) + delta(finish))

    (call,) = stream.choices[0].tool_calls

    assert call.complete is False
    with pytest.raises(ValueError, match=r".*"):
        call.parsed()


@given(depth=st.integers(1, 3000), escape=st.sampled_from(["", "\\ud83d"]))
def test_arguments_of_any_depth_are_read_or_refused(depth: int, escape: str) -> None:
    """Never anything but a value or a ValueError."""
    call = ToolCall("a", "f", '{"x": ' * depth + f'"{escape}"' + "}" * depth)

    with contextlib.suppress(ValueError):
        assert list(call.parsed()) == ["x"]


def test_half_a_surrogate_pair_in_arguments_is_a_replacement_character() -> None:
    """Else what was parsed could be written nowhere."""
    call = ToolCall("a", "f", '{"x": ["\\ud83d", "\\uD83D\\uDE00"]}')

    assert call.parsed() == {"x": ["\ufffd", "\U0001f600"]}
