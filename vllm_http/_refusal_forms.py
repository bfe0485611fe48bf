"""The error that JSON holds, in the forms that engines and gateways have for it. No I/O.

vLLM has four: ``{"error": {"message", "code"}}``, before 0.10.1 the same without the outer object
and with ``"object": "error"``, ``{"error": "text"}``, and FastAPI's ``{"detail": ...}``. Gateways
put the number beside the error, write it as text, name it otherwise, or put one error into another.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from ._redact import LOOKED_AT
from ._values import well_formed


_HOLDERS = ("error", "errors", "detail")
_NUMBERS = ("code", "status", "status_code", "statusCode", "http_status", "http_status_code")
_WORDS = ("message", "msg")

_NUMBER_OF_WORD = {
    "context_length_exceeded": 400,
    "content_filter": 400,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
}
"""OpenAI's codes are words; the status that each comes with."""


def error_in(value: Any) -> Any:
    """The part of a JSON value that is an error, with all that tells of it; None if it is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # Google's
    if not isinstance(value, dict):
        return None
    if value.get("error"):
        return value
    if value.get("choices"):
        return None
    named = "error" in (value.get("object"), value.get("type"))
    alone = len(value) == 1 and bool(value.get("errors") or value.get("detail"))  # FastAPI's
    numbered = has_words(value) and number_of(value) is not None
    return value if named or alone or numbered else None


def has_words(value: dict[str, Any]) -> bool:
    """Whether it says something, as an error would."""
    return any(value.get(name) for name in (*_WORDS, *_HOLDERS))


def number_of(error: Any) -> int | None:
    """The status that an error names, as a number, as text or by OpenAI's word; the innermost."""
    told = map(_number, reversed(_layers(error)))
    return next((number for number in told if number is not None), None)


def words_of(error: Any) -> str:
    """What an error says; its JSON where that is not known."""
    *outer, inner = _layers(error)
    if isinstance(inner, str):
        beside = outer[-1].get("message") if outer else None
        words = f"{inner}: {beside}" if beside and isinstance(beside, str) else inner
    else:
        named = [inner.get(name) for name in _WORDS] if isinstance(inner, dict) else []
        said = next((words for words in named if isinstance(words, str)), None)
        words = _beginning_of_json(inner) if said is None else said
    return str(well_formed(words[: LOOKED_AT + 1]))  # one more tells that there is more


def _beginning_of_json(value: Any) -> str:
    """A value as JSON, as far as it is looked at."""
    pieces, size = [], 0
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        pieces.append(piece)
        size += len(piece)
        if size > LOOKED_AT:
            break
    return "".join(pieces)


def _layers(error: Any) -> list[Any]:
    """The error, what it holds as its error, and so on, as deep as anybody nests them."""
    layers = [error]
    while isinstance(error, dict) and len(layers) < 8:
        held = [one for name in _HOLDERS if isinstance(one := error.get(name), (dict, list, str))]
        inner = next((one for one in held if one), None)
        if inner is None:
            break
        layers.append(inner)
        error = inner
    return layers


def _number(layer: Any) -> int | None:
    named = [layer.get(name) for name in _NUMBERS] if isinstance(layer, dict) else []
    for number in named:
        if isinstance(number, str) and number in _NUMBER_OF_WORD:
            return _NUMBER_OF_WORD[number]
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            real = float(number)  # type: ignore[arg-type]
            if real.is_integer() and 400 <= real < 600:
                return int(real)
    return None
