"""What all public values share: JSON out by dataclasses-json, JSON in with every type checked.

dataclasses-json does not read them, since it takes ``"false"`` for True and 1.9 for 1, and answers
a missing field with a KeyError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import msgspec
from dataclasses_json import DataClassJsonMixin

from ._errors import InvalidRequest, shown
from ._frames import frameless
from ._redact import printable


T = TypeVar("T")
V = TypeVar("V", bound="Value")


def read_json(name: str, text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as failure:
        raise InvalidRequest(f"{name}: not JSON: {printable(str(failure))}") from None


_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(value: Any) -> Any:
    """What JSON held, without what cannot be written again: lone surrogates, NaN, infinity.

    Half of a surrogate pair becomes a replacement character, as in every decoder of UTF-16; no
    server is known that sends the other half with its next event.
    """
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): well_formed(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Value(DataClassJsonMixin):
    """A dataclass that travels as JSON: ``to_dict``, ``to_json``, and their inverses."""

    @classmethod
    @frameless
    def from_dict(cls: type[V], kvs: Any, *, infer_missing: bool = False) -> V:
        """The inverse of ``to_dict``.

        Raises:
            InvalidRequest: A wrong type, a missing or an unknown key.
        """
        return read(cls, kvs, cls._read_custom)

    @classmethod
    @frameless
    def from_json(cls: type[V], s: str | bytes, **options: Any) -> V:  # type: ignore[override]
        """The inverse of ``to_json``.

        Raises:
            InvalidRequest: Not JSON, or as `from_dict`.
        """
        return cls.from_dict(read_json(cls.__name__.lower(), s), **options)

    @classmethod
    def _read_custom(cls, kind: type, value: Any) -> Any:
        raise NotImplementedError(f"{kind} is not read from JSON")


def read(kind: type[T], value: object, custom: Callable[[type, Any], Any]) -> T:
    """The value of that type, as its annotations say, that a dict describes.

    Args:
        kind: A dataclass or TypedDict.
        value: What JSON held.
        custom: Reads types that are neither; given the type and the value.

    Raises:
        InvalidRequest: A wrong type, a missing or an unknown key; named by its path.
    """
    name = kind.__name__.lower().strip("_")
    try:
        result = msgspec.convert(value, kind, dec_hook=custom)
    except _CANNOT_BE_READ as failure:
        raise InvalidRequest(f"{name}: {printable(str(failure))}") from None
    _refuse_unknown(name, result, value)
    return result


# A key that is half a surrogate pair has no UTF-8 to look for; a number may be beyond a float.
# msgspec 0.19 takes a range for a mapping.
_CANNOT_BE_READ = (
    *(msgspec.MsgspecError, ValueError, TypeError, AttributeError, ArithmeticError),
    RecursionError,
)


def _refuse_unknown(name: str, result: Any, value: Any) -> None:
    if isinstance(result, list):
        for item, source in zip(result, value, strict=True):
            _refuse_unknown(name, item, source)
    elif is_dataclass(result):
        if not isinstance(value, dict):  # msgspec 0.19 takes a range for a value without fields
            raise InvalidRequest(f"{name}: a JSON object is wanted, not {type(value).__name__}")
        known = {field.name: getattr(result, field.name) for field in fields(result)}
        for key, source in value.items():
            if key not in known:
                raise InvalidRequest(f"{name}: no field {shown(key)}")
            _refuse_unknown(f"{name}.{key}", known[key], source)
