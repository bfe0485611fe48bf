"""What two answers have to have in common to be of one form: their shapes, whatever they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from testing.raw_client import Response


# Objects whose keys are tokens, and so no part of the form.
_BY_TOKEN = ("top_logprobs[]", "prompt_logprobs[]")
# What time, text and the server's settings change.
_VARYING_HEADERS = ("date", "content-length")


class Event(NamedTuple):
    """One kind of event: what it is for, and its shape."""

    kind: str
    shape: tuple[str, ...]


def shape(value: Any, at: str = "") -> tuple[str, ...]:
    """The paths to all that JSON holds, each once, in their order, with the types of the ends."""
    return tuple(dict.fromkeys(_paths(value, at)))


def _paths(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _paths(item, f"{at}.*" if at.endswith(_BY_TOKEN) else f"{at}.{key}")
    elif isinstance(value, list) and value:
        for item in value:
            yield from _paths(item, f"{at}[]")
    else:
        yield f"{at}: {value if value in ({}, []) else type(value).__name__}"


def fixed_headers(response: Response) -> list[tuple[str, str]]:
    """The headers without what varies."""
    return [
        (name, "" if name in _VARYING_HEADERS else value) for name, value in response.head.headers
    ]


def outline(response: Response) -> dict[str, list[Event]]:
    """A stream's events by choice, and under "end" those of no choice; repetitions left out.

    How the choices' events interleave is left out too: it depends on the server's load. A choice
    that goes on after the end stands apart, as late.
    """
    found: dict[str, list[Event]] = {}
    for chunk in response.chunks:
        data = chunk.removeprefix(b"data: ").rstrip()
        events = [("end", Event(data.decode(), ()))]
        if data.startswith(b"{"):
            events = [_named(body) for body in response._replace(chunks=[chunk]).events]
        for name, event in events:
            name = f"{name}, late" if name != "end" and "end" in found else name
            track = found.setdefault(name, [])
            if track[-1:] != [event]:
                track.append(event)
    return found


def _named(body: dict[str, Any]) -> tuple[str, Event]:
    """Which choice an event is about, and what it is for."""
    choices = body.get("choices")
    if not choices:
        kind = "error" if "error" in body else "usage" if "usage" in body else "unknown"
        return "end", Event(kind, shape(body))
    (choice,) = choices
    delta = choice.get("delta", {})
    kind = "role" if "role" in delta else "tool call" if "tool_calls" in delta else "text"
    if choice["finish_reason"] is not None:
        kind = f"finish ({choice['finish_reason']})"
    return f"choice {choice['index']}", Event(kind, shape(body))


def differences(actual: Response, expected: Response) -> list[str]:
    """What keeps two answers from being of one form, each with the path to it."""
    if actual.head.status != expected.head.status:
        return [f"status {actual.head.status}, not {expected.head.status}"]
    found = _unlike("headers", _lines(actual), _lines(expected))
    if not expected.chunks:
        found += _unlike("body", shape(_body(actual)), shape(_body(expected)))
        return found + _unlike("body", _ends(actual), _ends(expected))
    ours, theirs = outline(actual), outline(expected)
    found += _unlike("stream", tuple(sorted(ours)), tuple(sorted(theirs)))
    for name in ours.keys() & theirs.keys():
        found += _unlike_events(name, ours[name], theirs[name])
    last = (list(actual.chunks[-1:]), list(expected.chunks[-1:]))
    return found + ([] if last[0] == last[1] else [f"last chunk: {last[0]}, not {last[1]}"])


def _lines(response: Response) -> tuple[str, ...]:
    return tuple(f"{name}: {value}" for name, value in fixed_headers(response))


def _body(response: Response) -> Any:
    kind = response.head.header("content-type") or ""
    return response.json if kind == "application/json" and response.body else bool(response.body)


def _ends(response: Response) -> tuple[str, ...]:
    """How the choices of a whole answer end."""
    body = _body(response)
    choices = body.get("choices", []) if isinstance(body, dict) else []
    return tuple(f"choice {each['index']}: {each['finish_reason']}" for each in choices)


def _unlike_events(name: str, ours: list[Event], theirs: list[Event]) -> list[str]:
    kinds, wanted = [event.kind for event in ours], [event.kind for event in theirs]
    found: list[str] = []
    for kind in dict.fromkeys(kinds):
        mine = dict.fromkeys(event.shape for event in ours if event.kind == kind)
        other = dict.fromkeys(event.shape for event in theirs if event.kind == kind)
        strange = [each for each in mine if each not in other]
        lacking = [each for each in other if each not in mine]
        for one, two in zip(strange, lacking or other, strict=False):
            found += _unlike(f"{name}, {kind}", one, two)
    if not found and kinds != wanted:
        found.append(f"{name}: the events are {kinds}, not {wanted}")
    if not found and ours != theirs:
        found.append(f"{name}: the shapes of {kinds} come in another order")
    return found


def _unlike(where: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[str]:
    found = [f"{where}: has {line!r}" for line in ours if line not in theirs]
    found += [f"{where}: lacks {line!r}" for line in theirs if line not in ours]
    if not found and ours != theirs:
        found.append(f"{where}: the order is {ours}, not {theirs}")
    return found
