"""From an engine's refusal, by status or inside a 200, to the error that names it.

Classified by the number alone, never by vLLM's ``type`` strings: 400 has at least four of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from ._errors import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    Timeout,
    WorkerError,
)
from ._redact import Redactor
from ._values import well_formed


def refusal(
    status: int | None, text: str, *, retry_after_ms: int | None = None, location: str = ""
) -> WorkerError:
    """The error for an HTTP status, or for the ``code`` of an error inside a stream.

    Args:
        status: None when the engine gave an error without a number.
        text: The engine's own words, redacted.
        retry_after_ms: From the Retry-After header.
        location: Where a redirect points, redacted.
    """
    said = f"engine answered {status}" if status is not None else "engine sent an error"
    message = f"{said}: {text}" if text else said
    if status is None:
        return EngineUnavailable(message)
    if status in (409, 425, 429):
        return CapacityExceeded(message, status=status, retry_after_ms=retry_after_ms)
    if status == 408:
        return Timeout(message, phase="first_token", status=status, retry_after_ms=retry_after_ms)
    if 300 <= status < 400:
        message = f"{said}, a redirect to {location or 'nowhere'}; redirects are not followed"
        return EngineUnavailable(message, status=status, retriable=False)
    if 400 <= status < 500:
        code = {401: "UPSTREAM_AUTH", 403: "UPSTREAM_AUTH", 404: "UPSTREAM_NOT_FOUND"}.get(status)
        return InvalidRequest(message, status=status, code=code)
    return EngineUnavailable(
        message,
        status=status,
        retriable=status in (500, 502, 503, 504),
        retry_after_ms=retry_after_ms,
    )


def refusal_of_answer(
    status: int, headers: Mapping[str, str], body: bytes, redact: Redactor
) -> WorkerError:
    """The error for an answer whose status is not 200."""
    return refusal(
        status,
        redact(_text_of_body(body)),
        retry_after_ms=parse_retry_after(headers.get("Retry-After")),
        location=redact(headers.get("Location", "")),
    )


def refusal_in_stream(error: Any, redact: Redactor, *, begun: bool = False) -> WorkerError:
    """The error for ``{"error": ...}`` inside a 200 stream; its class follows from its ``code``.

    But for two cases in which a 4xx is not the caller's fault: an answer that has begun, since its
    request was good, and a dead engine (vLLM up to 0.12 gives it a 400 there).

    Args:
        error: What stood there; JSON of any kind.
        redact: Applied to its text.
        begun: Whether a part of the answer had come.
    """
    status = _code_of(error)
    text = _text_of_error(error)
    failure = refusal(status, redact(text))
    if isinstance(failure, InvalidRequest) and (begun or _ENGINE_DEAD.match(text)):
        return EngineUnavailable(failure.message, status=status)
    return failure


def refusal_of_event(data: str, redact: Redactor, *, begun: bool) -> WorkerError:
    """The error for an event of type ``error``, whose data is JSON in any form, or plain words."""
    error: Any = data
    with contextlib.suppress(ValueError, RecursionError):
        error = json.loads(data)
    if isinstance(error, dict):
        error = error.get("error") or error.get("detail") or error
    return refusal_in_stream(error, redact, begun=begun)


_ENGINE_DEAD = re.compile(
    r"EngineCore encountered an issue|Engine loop is not running|Background loop (has|is)\b"
    r"|Engine process .*died"
)
"""How vLLM's own exceptions of a dead engine begin: of version 1 of its engine, and of 0."""


def _code_of(error: Any) -> int | None:
    """The status that an error names, as a number or as text."""
    named = error if isinstance(error, dict) else {}
    for code in (named.get("code"), named.get("status"), named.get("status_code")):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(code)  # type: ignore[arg-type]
            if number.is_integer() and 400 <= number < 600:
                return int(number)
    return None


def _text_of_body(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text  # HTML of a gateway, or nothing
    if isinstance(value, dict):
        for key in ("error", "detail", "message"):
            if value.get(key):
                return _text_of_error(value[key])
    return text


def _text_of_error(error: Any) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    if not isinstance(text, str):
        text = json.dumps(error, ensure_ascii=False)
    return str(well_formed(text))


def parse_retry_after(value: str | None) -> int | None:
    """Milliseconds from a Retry-After header, in seconds or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        seconds = (when - datetime.now(timezone.utc)).total_seconds()
    milliseconds = seconds * 1000
    return max(0, math.ceil(milliseconds)) if math.isfinite(milliseconds) else None
