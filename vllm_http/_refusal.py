"""From an engine's refusal, by status or inside a 200, to the error that names it.

Classified by the number alone, never by vLLM's ``type`` strings: 400 has at least four of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from ._errors import EngineUnavailable, InvalidRequest, WorkerError
from ._failures import GARBAGE, UNNUMBERED, of_status
from ._redact import LOOKED_AT, Redactor
from ._values import well_formed
from ._web_page import page_in


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, as a refusal of it should name it.

    Attributes:
        url: Without a secret.
        with_key: Whether an Authorization header was sent.
        proxy: Without its credentials; "" where none is between.
    """

    url: str
    with_key: bool = False
    proxy: str = ""


def refusal(
    status: int | None,
    text: str,
    *,
    retry_after_ms: int | None = None,
    location: str = "",
    who: str = "engine",
    about: str = "",
) -> WorkerError:
    """The error for an HTTP status, or for the ``code`` of an error inside a stream.

    Args:
        status: None when the engine gave an error without a number.
        text: The engine's own words, redacted.
        retry_after_ms: From the Retry-After header.
        location: Where a redirect points, redacted.
        who: Whose refusal it is.
        about: What we have to say of it, to be put before the engine's own words.
    """
    if status is None:
        return UNNUMBERED.error(f"{who} sent an error: {text}" if text else f"{who} sent an error")
    said = f"{who} answered {status}{about}"
    message = f"{said}: {text}" if text else said
    if 300 <= status < 400:
        message = f"{said}, a redirect to {location or 'nowhere'}; redirects are not followed"
    return of_status(status).error(message, status=status, retry_after_ms=retry_after_ms)


def refusal_of_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    redact: Redactor,
    asked: Asked | None = None,
) -> WorkerError:
    """The error for an answer whose status is not 200."""
    # A redirect has one as a rule, and what counts is where it points.
    redirect = 300 <= status < 400
    page = None if redirect else page_in(body, headers.get("Content-Type", ""))
    proxied = status == 407 and asked is not None and asked.proxy
    return refusal(
        status,
        redact(text_of_body(body) if page is None else page),
        retry_after_ms=parse_retry_after(headers.get("Retry-After")),
        location=redact(headers.get("Location", "")),
        who=f"proxy {proxied}" if proxied else "engine",
        about=_about(status, page is not None, asked),
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


def refusal_of_proxy(status: int, asked: Asked) -> WorkerError:
    """The error for a CONNECT that a proxy refused."""
    about = _about(status, False, asked) if status == 407 else f" to CONNECT for {asked.url}"
    return refusal(status, "", who=f"proxy {asked.proxy}", about=about)


def page_instead(asked: Asked, line: str) -> WorkerError:
    """The error for a web page in a 200; the line that it is told by is redacted."""
    told = f": {line}" if line else ""
    return GARBAGE.error(f"engine answered 200{_about(200, True, asked)}{told}")


def _about(status: int, page: bool, asked: Asked | None) -> str:
    """What a reader should know besides the engine's own words."""
    url = f" for {asked.url}" if asked is not None else ""
    if status == 407:
        return " (it wants other credentials: give them in proxies, as http://user:password@host)"
    if page:
        return f"{url} with a web page, so this is no vLLM server, or a gateway before one"
    if status == 404:
        return url
    if status == 401 and asked is not None:
        if asked.with_key:
            return " (the API key that was sent is wrong: check api_key)"
        return " (the API key is missing: none was sent; give it as api_key)"
    return ""


def refusal_in_document(body: bytes, redact: Redactor) -> WorkerError | None:
    """The error that a JSON document is instead of an answer, where its ``code`` says which."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    error = value.get("error") if isinstance(value, dict) else None
    refused = refusal_in_stream(error, redact) if error else None
    return refused if refused is not None and refused.status is not None else None


def text_of_body(body: bytes) -> str:
    """The words of an error in any of the forms that vLLM and gateways have; else the body."""
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
        text = _beginning_of_json(error)
    return str(well_formed(text[: LOOKED_AT + 1]))  # one more tells that there is more


def _beginning_of_json(value: Any) -> str:
    """A value as JSON, as far as it is looked at."""
    pieces, size = [], 0
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        pieces.append(piece)
        size += len(piece)
        if size > LOOKED_AT:
            break
    return "".join(pieces)


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
