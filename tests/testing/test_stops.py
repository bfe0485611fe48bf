"""Where a text ends before its limit, and what of it goes out when."""

from __future__ import annotations

from typing import Any

import pytest
from testing.raw_client import RawClient, Response


FULL: dict[str, Any] = {"max_tokens": 40, "return_token_ids": True}


def choice(response: Response) -> dict[str, Any]:
    """The only choice of a whole answer."""
    (found,) = response.json["choices"]
    assert isinstance(found, dict)
    return found


def test_stop_string_is_cut_off(client: RawClient) -> None:
    """The text ends before the first stop string; the token that had it counts."""
    full = choice(client.complete(**FULL))
    answer = client.complete(**FULL, stop=["e"])
    stopped = choice(answer)

    assert stopped["text"] == full["text"].partition("e")[0]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", "e")
    assert stopped["token_ids"] == full["token_ids"][: len(stopped["token_ids"])]
    assert answer.json["usage"]["completion_tokens"] == len(stopped["token_ids"]) < 40


def test_stop_string_may_stay(client: RawClient) -> None:
    """With include_stop_str_in_output the text ends after it."""
    full = choice(client.complete(**FULL))["text"]
    stopped = choice(client.complete(**FULL, stop="e", include_stop_str_in_output=True))["text"]

    assert stopped == full.partition("e")[0] + "e"


def test_stop_string_over_two_tokens(client: RawClient) -> None:
    """A stop string is found where it begins in one token and ends in the next."""
    first, second, third = client.complete(max_tokens=3, stream=True).texts
    stop = first[-1] + second + third[0]
    stopped = choice(client.complete(max_tokens=9, stop=[stop]))

    assert (stopped["text"], stopped["stop_reason"]) == (first[:-1], stop)


def test_stop_token(client: RawClient) -> None:
    """A stop token ends the text before itself, and is the stop_reason."""
    full = choice(client.complete(**FULL))
    third = full["token_ids"][2]
    stopped = choice(client.complete(**FULL, stop_token_ids=[third]))
    kept = choice(client.complete(**FULL, stop_token_ids=[third], include_stop_str_in_output=True))

    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", third)
    assert stopped["token_ids"][-1] == kept["token_ids"][-1] == third
    assert full["text"].startswith(kept["text"])
    assert kept["text"].startswith(stopped["text"])
    assert kept["text"] != stopped["text"]


@pytest.mark.parametrize("stop", [["e"], ["nowhere to be found"], ["e", "nowhere to be found"]])
def test_stopped_stream_says_the_same(client: RawClient, stop: list[str]) -> None:
    """The deltas of a stopped stream add up to the whole, with the same end."""
    whole = choice(client.complete(**FULL, stop=stop))
    events = client.complete(**FULL, stop=stop, stream=True).events
    last = events[-1]["choices"][0]

    assert "".join(e["choices"][0]["text"] for e in events) == whole["text"]
    assert [last[key] for key in ("finish_reason", "stop_reason")] == [
        whole[key] for key in ("finish_reason", "stop_reason")
    ]


def test_text_that_may_be_a_stop_is_held_back(client: RawClient) -> None:
    """As many characters as a stop string may have begun with are not sent before the end."""
    stop = "nowhere to be found"
    full = choice(client.complete(**FULL))["text"]
    texts = client.complete(**FULL, stop=[stop], stream=True).texts

    assert texts[0] == ""
    assert "".join(texts[:-1]) == full[: len("".join(texts[:-1]))]
    assert len(texts[-1]) >= len(stop) - 1


def test_choices_stop_each_by_itself(client: RawClient) -> None:
    """Each choice of a stream goes to its own stop."""
    fields: dict[str, Any] = {"n": 3, "max_tokens": 40, "stop": ["e"]}
    whole = client.complete(**fields).json["choices"]
    events = client.complete(**fields, stream=True).events

    for index, expected in enumerate(whole):
        mine = [c for e in events for c in e["choices"] if c["index"] == index]
        assert "".join(c["text"] for c in mine) == expected["text"]
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == ["stop"]
    assert len({len(each["text"]) for each in whole}) > 1
