"""From a task to what goes on the wire: path, headers, JSON."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ._errors import InvalidRequest, shown
from ._host import is_host
from ._structured import StructuredOutputs
from ._task import SENT, TaskRequest


@dataclass(frozen=True, slots=True)
class WireRequest:
    """What one task sends on every attempt, but for the X-Request-Id.

    Attributes:
        path: Below the adapter's base URL.
        body: JSON, UTF-8.
        correlation_id: Safe as a header value.
        choices: How many choices the engine will finish.
        streamed: Whether the answer is an event stream, or else one JSON document.
    """

    path: str
    body: bytes = field(repr=False)  # the prompt is in it
    correlation_id: str
    choices: int
    streamed: bool

    @property
    def answer(self) -> str:
        """The media type of the answer."""
        return "text/event-stream" if self.streamed else "application/json"


def encode(task: TaskRequest, job_id: str) -> WireRequest:
    """The request of a valid task.

    Raises:
        InvalidRequest: A value cannot be written as JSON.
    """
    fields = {name: value for name in SENT if (value := getattr(task, name)) is not None}
    if isinstance(task.structured_outputs, StructuredOutputs):
        fields["structured_outputs"] = task.structured_outputs.on_the_wire()
    fields["stream"] = task.streamed
    if task.streamed and task.include_usage:
        fields["stream_options"] = {"include_usage": True}
    return WireRequest(
        path="/v1/completions" if task.endpoint == "completions" else "/v1/chat/completions",
        body=json_body(fields, task.extra_body),
        correlation_id=quote(task.correlation_id or job_id, safe=_HEADER_SAFE),
        choices=_choices(task),
        streamed=task.streamed,
    )


def _choices(task: TaskRequest) -> int:
    n = _count(task.extra_body.get("n", task.n))
    prompts = task.prompt_embeds if task.prompt is None else task.prompt
    several = isinstance(prompts, list) and not isinstance(prompts[0], int)
    return (len(prompts) if prompts and several else 1) * max(n, 1)


def _count(n: Any) -> int:
    """A number as vLLM takes it, which is also as text; what it refuses is 1."""
    try:
        return int(n)
    except (TypeError, ValueError, OverflowError):
        return 1


# Printable ASCII stays as it is; a header holds nothing else, so the rest is percent-encoded.
_HEADER_SAFE = "".join(map(chr, range(0x20, 0x7F)))


def json_body(fields: dict[str, Any], extra_body: dict[str, Any]) -> bytes:
    """All members as JSON.

    Raises:
        InvalidRequest: Names the one that cannot be written.
    """
    members = {**fields, **extra_body}
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        return _json(members)
    # Outside of the block: its exceptions hold the value, which may be a prompt.
    culprit = next(key for key, value in members.items() if _why_not({key: value}))
    field = culprit if culprit in fields else f"extra_body.{shown(culprit)[1:-1]}"
    why = _why_not({culprit: members[culprit]})
    raise InvalidRequest(f"{field}: cannot be written as JSON: {why}")


def _why_not(value: Any) -> str:
    """Why it cannot be written as JSON; "" if it can."""
    try:
        _json(value)
    except UnicodeEncodeError:
        return "it holds a lone surrogate"
    except (TypeError, ValueError, RecursionError) as failure:
        return str(failure)
    return ""


def _json(value: Any) -> bytes:
    # allow_nan: vLLM answers 400 to NaN, and JSON has none.
    return _ENCODER.encode(value).encode()


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def parse_base_url(url: str) -> str:
    """The base URL without a trailing ``/`` or ``/v1``.

    Raises:
        InvalidRequest: Not http(s), no host, or with credentials, a query or a fragment.
    """
    if not isinstance(url, str):
        raise InvalidRequest(f"base_url: text is wanted, not {type(url).__name__}")
    if "@" in url:  # wherever it stands: what could be a password is never shown
        raise InvalidRequest("base_url: credentials in a URL end up in logs; use api_key")
    bare, *more = re.split("[?#]", url.strip(), maxsplit=1)
    if any(more):  # nor is a query
        raise InvalidRequest(
            f"base_url: {shown(bare)} goes on with a query or fragment; not allowed"
        )
    try:
        parts = urlsplit(bare)
        valid = parts.scheme in ("http", "https") and is_host(parts.netloc) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not bare.isprintable() or set(" \\") & set(bare):
        raise InvalidRequest(f"base_url: {shown(url)} is no http://host[:port], nor https://...")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
