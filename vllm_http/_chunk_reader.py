"""JSON to chunks: strictly, as vLLM writes it; where that fails, whatever can be read of it.

An answer is not lost to an odd field beside it: a number as text, a NaN, half a surrogate pair, an
object in place of a list. What says something to the caller (`_SAID`) is never left out: if that
is not what it should be, the event is refused, and the refusal tells what came.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from ._chunk import Chunk, ChunkChoice, Delta, Envelope, Function, ToolCallPiece
from ._values import well_formed


T = TypeVar("T")


class NotAChunk(ValueError):
    """An event's JSON holds something else in place of what the caller is to be told."""


NOT_A_CHUNK = (msgspec.MsgspecError, UnicodeError, RecursionError, NotAChunk)
"""What the readers raise. Its text names places and types, never content."""

read_strictly = msgspec.json.Decoder(Chunk).decode
"""For every event; `read_leniently` is for those that it refuses."""

_SAID: dict[type, frozenset[str]] = {
    Chunk: frozenset({"choices"}),
    ChunkChoice: frozenset({"index", "text", "delta", "message", "finish_reason"}),
    Delta: frozenset(Delta.__struct_fields__),
    ToolCallPiece: frozenset({"index", "function"}),
    Function: frozenset(Function.__struct_fields__),
}


def read_chunk(payload: bytes | bytearray) -> Chunk:
    """An event, or a whole answer.

    Raises:
        NOT_A_CHUNK: It is no JSON, or not an answer's.
    """
    try:
        return read_strictly(payload)
    except NOT_A_CHUNK as failure:
        return read_leniently(payload, Chunk, failure)


def read_envelope(payload: bytes | bytearray) -> Envelope:
    """What an event tells beside its choices, given that `read_chunk` could read it."""
    return _read_beside(_envelope, payload, Envelope)


def read_value(payload: bytes | bytearray) -> Any:
    """An event's JSON as it is, given that `read_chunk` could read it."""
    return _JSON.decode(payload.decode())


_envelope = msgspec.json.Decoder(Envelope).decode


class _Members(msgspec.Struct):
    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None


class _Choices(msgspec.Struct):
    choices: list[_Members] | None = None


_choices = msgspec.json.Decoder(_Choices).decode


def unread_member(payload: bytes | bytearray) -> str | None:
    """A member of the event's choices that may be content and is not read, such as audio."""
    known = {*Delta.__struct_fields__, "role", "name"}
    try:
        choices = _choices(payload).choices or []
    except NOT_A_CHUNK:
        return None
    for choice in choices:
        for place, said in (("delta", choice.delta), ("message", choice.message)):
            for name, value in (said or {}).items():
                if name not in known and value and isinstance(value, (str, list, dict)):
                    return f"{place}.{name}" if name.isidentifier() and len(name) < 40 else place
    return None


def strange_member(payload: bytes | bytearray) -> str | None:
    """A member of an event without choices that may be another API's content."""
    known = {*Chunk.__struct_fields__, *Envelope.__struct_fields__, "type", "id", "object"}
    value = read_value(payload)
    for name, member in value.items() if isinstance(value, dict) else ():
        if name not in known and member and isinstance(member, (str, list, dict)):
            return name if name.isidentifier() and len(name) < 40 else "other members"
    return None


def _read_beside(strictly: Callable[..., T], payload: bytes | bytearray, kind: type[T]) -> T:
    try:
        return strictly(payload)
    except NOT_A_CHUNK as failure:
        return read_leniently(payload, kind, failure)


def read_leniently(payload: bytes | bytearray, kind: type[T], failure: Exception) -> T:
    """What can be read of an event that the strict reader refused.

    Of a member that comes twice the last one counts, as for the strict reader.

    Raises:
        NotAChunk: What is said in it cannot be read.
        Exception: The `failure`, if it is no JSON at all.
    """
    try:
        value = _JSON.decode(payload.decode())
    except ValueError:
        raise failure from None
    try:
        result: T = _object(kind, value, _EVENT)
    except NotAChunk:
        if kind is not Chunk or not isinstance(value, dict) or not value.get("error"):
            raise
        result = _object(kind, {"error": value["error"]}, _EVENT)  # it says what went wrong
    return result


def _number_of_any_size(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads
        return math.inf


# Beyond JSON it takes what Python's own writer makes (NaN, Infinity, lone surrogates), and
# characters that ought to be escaped.
_JSON = json.JSONDecoder(parse_int=_number_of_any_size, strict=False)


def _object(kind: Any, value: Any, path: str) -> Any:
    """A struct or a dataclass; members that are null or not there take their defaults."""
    if not isinstance(value, dict):
        raise _odd(path, "an object", value)
    members: dict[str, Any] = {}
    for name, hint in _hints(kind).items():
        member = value.get(name)
        if member is None or (member == "" and not _takes_text(hint)):
            continue
        said = name in _SAID.get(kind, ())
        try:
            members[name] = _read(hint, member, f"{path}.{name}".removeprefix(f"{_EVENT}."), said)
        except NotAChunk:
            # Gateways write an empty object as a list, or the other way round: it says nothing.
            # Choices that are no list, though, are another kind of answer altogether.
            if said and (member not in ([], {}) or kind is Chunk):
                raise
    try:
        return kind(**members)
    except TypeError:  # a member that has no default is missing, or was odd
        raise NotAChunk(f"{path} is not whole") from None


_EVENT = "the event"
_NEVER = object()


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _takes_text(hint: Any) -> bool:
    return hint is Any or str in (hint, *get_args(hint))


def _read(hint: Any, value: Any, path: str, said: bool) -> Any:
    """A value of that type. It is converted if need be: what is `said`, to the letter only."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return _one_of(inner, value, path, said)
    if kind is list:
        if isinstance(value, dict) and _is_one(inner[0], value):
            value = [value]
        if not isinstance(value, list):
            raise _odd(path, "a list", value)
        # Whose a piece of a call is, its place in the list does not tell: a null is none.
        left_out = None if inner[0] is ToolCallPiece else _NEVER
        items = [(n, item) for n, item in enumerate(value) if item is not left_out]
        return [_read(inner[0], item, f"{path}[{n}]", said) for n, item in items]
    if kind is dict:
        if not isinstance(value, dict):
            raise _odd(path, "an object", value)
        keys = value if inner[0] is str else [key for key in value if _is_digits(key)]
        return {inner[0](key): _read(inner[1], value[key], path, said) for key in keys}
    if kind is Any:
        return well_formed(value)
    if kind is str:
        return _text(value, path, said)
    if kind is int:
        return _whole_number(value, path)
    if kind is float:
        return _number(value, path)
    if kind is Function and isinstance(value, dict) and isinstance(value.get("arguments"), dict):
        # Not yet written as text; it was meant to be. An empty one stands for what is to come.
        arguments = value["arguments"]
        text = json.dumps(arguments, ensure_ascii=False) if arguments else ""
        value = {**value, "arguments": text}
    return _object(kind, value, path)


def _is_one(kind: Any, value: dict[str, Any]) -> bool:
    """Whether it is one such struct, as TGI sends a tool call in place of a list of them."""
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return is_struct and not value.keys().isdisjoint(_hints(kind))


def _one_of(options: tuple[Any, ...], value: Any, path: str, said: bool) -> Any:
    """Of the type that it has already, or of the first that it can be made to; else None."""
    odd = None
    for option in sorted(options, key=lambda option: option is not type(value)):
        if option is NoneType:
            continue
        try:
            return _read(option, value, path, said)
        except NotAChunk as failure:
            odd = odd or failure
    if said and value is not None and odd is not None:
        raise odd
    return None


def _text(value: Any, path: str, said: bool) -> str:
    if not said and (type(value) is int or (type(value) is float and math.isfinite(value))):
        value = str(value)
    if not isinstance(value, str):
        raise _odd(path, "text", value)
    return str(well_formed(value))


def _is_digits(text: str) -> bool:
    return text.isdecimal() and len(text) < 20


def _whole_number(value: Any, path: str) -> int:
    if (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, str) and _is_digits(value.removeprefix("-"))
    ):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _odd(path, "a whole number", value)
    return value


def _number(value: Any, path: str) -> float:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _odd(path, "a number", value)
    if value == -math.inf:
        return _MINUS_INFINITY
    with contextlib.suppress(OverflowError):  # a whole number that no float holds
        if math.isfinite(value):
            return float(value)
    raise NotAChunk(f"{path} is not finite")


_MINUS_INFINITY = -9999.0
"""As vLLM writes it, for JSON has no name for it."""


def _odd(path: str, wanted: str, value: Any) -> NotAChunk:
    return NotAChunk(f"{path}: {wanted} is wanted, not {_JSON_NAMES.get(type(value), 'that')}")


_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
}
