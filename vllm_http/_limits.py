"""The limits of a task's fields: each a check that names the field, its value and the limit.

They are those of vLLM 0.32. What a flag or a variable of the server can move (stop strings,
logprobs, choices, prompts at once) is left to the server.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, Literal, TypeAlias

from ._errors import InvalidRequest, shown


Check: TypeAlias = Callable[[str, Any], None]
"""Given a field's name and its value, which is not None. Raises `InvalidRequest`."""

Endpoint: TypeAlias = Literal["completions", "chat"]

INT64 = 2**63


def sent(check: Check, *, only: Endpoint | None = None) -> Any:
    """A field of a request that goes on the wire under its own name, unless it is None.

    Args:
        check: Its limit.
        only: The one endpoint that takes it; vLLM would ignore it at the other.
    """
    return field(default=None, metadata={"check": check, "sent": True, "only": only})


def kept(check: Check, *, default: Any = None) -> Any:
    """A field that is not part of the request's body."""
    return field(default=default, metadata={"check": check, "sent": False, "only": None})


def whole(least: int, most: int | None = None) -> Check:
    """A whole number within limits; without an upper one, of 64 bits, as the engine's are."""
    limit = f">= {least}" if most is None else f"from {least} to {most}"
    bound = INT64 - 1 if most is None else most

    def check(name: str, value: Any) -> None:
        if type(value) is int and most is None and value > bound:
            raise InvalidRequest(f"{name}: {shown(value)} has more than 64 bits")
        if type(value) is not int or not least <= value <= bound:
            raise InvalidRequest(f"{name}: {shown(value)} is not a whole number {limit}")

    return check


def number(least: float, most: float = math.inf, *, above: bool = False) -> Check:
    """A finite number within limits; `above` excludes the lower one."""
    limit = f"{'(' if above else '['}{least:g}, {most:g}{']' if most < math.inf else ')'}"

    def check(name: str, value: Any) -> None:
        if (
            not _is_number(value)
            or not least <= value <= most
            or (above and value == least)
            or not -sys.float_info.max <= value <= sys.float_info.max
        ):
            raise InvalidRequest(f"{name}: {shown(value)} is not a number in {limit}")

    return check


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def flag(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: {shown(value)} is neither True nor False")


def text(name: str, value: Any) -> None:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name}: {shown(value)} is not text of at least 1 character")


def one_of(*choices: str) -> Check:
    """One of these words."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in choices:
            raise InvalidRequest(f"{name}: {shown(value)} is none of {', '.join(choices)}")

    return check


def each(item: Check, *, least: int = 1) -> Check:
    """A list whose items keep a limit of their own."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list) or len(value) < least:
            given = f"{len(value)} items" if isinstance(value, list) else type(value).__name__
            raise InvalidRequest(f"{name}: a list of at least {least} is wanted, not {given}")
        for position, member in enumerate(value):
            item(f"{name}[{position}]", member)

    return check


def either(*checks: tuple[type, Check]) -> Check:
    """What keeps the limit of its own type."""
    kinds = " or ".join(kind.__name__ for kind, _ in checks)

    def check(name: str, value: Any) -> None:
        for kind, limit in checks:
            if isinstance(value, kind):
                return limit(name, value)
        raise InvalidRequest(f"{name}: {kinds} is wanted, not {type(value).__name__}")

    return check


def mapping(name: str, value: Any) -> None:
    """A dict with text as keys, as JSON has them."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}: a dict is wanted, not {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise InvalidRequest(f"{name}: the key {shown(key)} is not text")


def mapping_with(*keys: str) -> Check:
    """A dict that has these keys."""

    def check(name: str, value: Any) -> None:
        mapping(name, value)
        for key in keys:
            if key not in value:
                raise InvalidRequest(f"{name}: it has no {key!r}")

    return check


def logit_bias(name: str, value: Any) -> None:
    """A dict from token ids, as numbers or digits, to numbers."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}: a dict is wanted, not {type(value).__name__}")
    for key, bias in value.items():
        if not (type(key) is int and key >= 0) and not (isinstance(key, str) and key.isdecimal()):
            raise InvalidRequest(f"{name}: the key {shown(key)} is no token id")
        number(-math.inf)(f"{name}[{shown(key)}]", bias)


def cache_salt(name: str, value: Any) -> None:
    """Text that vLLM takes as a salt."""
    text(name, value)
    if len(value) > 128:
        raise InvalidRequest(f"{name}: {len(value)} characters, at most 128 are allowed")
    for character in "@/\\\0":
        if character in value:
            raise InvalidRequest(f"{name}: it holds {character!r}, which is not allowed")


MAX_ID_LENGTH = 256
"""Characters in a job_id, session_id or correlation_id: they become headers and log fields."""


def identifier(name: str, value: Any) -> None:
    """What can be a header and a log field."""
    text(name, value)
    if len(value) > MAX_ID_LENGTH:
        raise InvalidRequest(
            f"{name}: {len(value)} characters, at most {MAX_ID_LENGTH} are allowed"
        )
    if not value.isprintable():
        raise InvalidRequest(f"{name}: {shown(value)} holds control characters; none are allowed")
    if value != value.strip():
        raise InvalidRequest(f"{name}: {shown(value)} begins or ends with a space; a header cannot")


def check_id(name: str, value: object) -> None:
    """Refuse what cannot be an id; None is none.

    Raises:
        InvalidRequest: Names the field, its value and the limit.
    """
    if value is not None:
        identifier(name, value)


def token_ids(name: str, value: Sequence[Any]) -> None:
    """Token ids of a prompt; what is wrong is not shown, since it is part of a prompt."""
    for position, token in enumerate(value):
        if type(token) is not int:
            kind = type(token).__name__
            raise InvalidRequest(f"{name}[{position}]: {kind} is no token id; an int is wanted")
        if token < 0:
            raise InvalidRequest(f"{name}[{position}]: {shown(token)} is no token id; it is < 0")
