"""From an engine's refusal, by status or inside a 200, to the error that names it.

Classified by the number alone, never by vLLM's ``type`` strings: 400 has at least four of them.
"""

from __future__ import annotations

import json
import math
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


def refusal_in_stream(error: Any, redact: Redactor) -> WorkerError:
    """The error for ``{"error": ...}`` inside a 200 stream; its class follows from its ``code``."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    return refusal(status, redact(_text_of_error(error)))


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
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


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
