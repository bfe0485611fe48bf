"""What a caller asks for: `TaskRequest`, and the limits that are checked before the wire."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ._errors import InvalidRequest, shown
from ._values import Value


MAX_ID_LENGTH = 256
"""Characters in a job_id, session_id or correlation_id: they become headers and log fields."""

_OWNED = ("stream", "stream_options", "prompt", "messages")
_INT64 = 2**63


@dataclass(kw_only=True)
class TaskRequest(Value):
    """One request of the caller. None means: not sent, so that the engine's default holds.

    Exactly one of `prompt` and `messages` is given. Nothing is checked until `validate`, which
    `submit` and `from_json` call. Values are read once, at `submit`.

    Attributes:
        prompt: Text, or token ids; goes to ``/v1/completions``.
        messages: A chat, each message a dict with ``role`` and ``content``; goes to
            ``/v1/chat/completions``.
        model: A name that the engine serves; without one vLLM takes its first model.
        max_tokens: At least 1. vLLM's default is 16 for prompts, the rest of the context for chat;
            a value that leaves no room beside the prompt is silently cut to fit (vLLM 0.32).
        temperature: 0 to 2.
        top_p: Above 0, at most 1.
        seed: A signed 64-bit integer; 0 is a seed like any other.
        session_id: For affinity and logs; not sent.
        deadline_ms: Milliseconds from `submit` to the end, waiting and retries included.
        priority: vLLM's scheduling priority, lower is earlier; it is obeyed with
            ``--scheduling-policy priority`` and ignored otherwise.
        correlation_id: Sent as ``X-Correlation-Id``; the job_id if None.
        job_id: Unique among the adapter's live tasks; `submit` makes a UUID if None.
        extra_body: More fields of the request body under vLLM's own names, sent as they are. It
            may not set ``stream``, ``stream_options``, ``prompt`` or ``messages``, nor repeat a
            field that is set above.
    """

    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    session_id: str | None = None
    deadline_ms: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    job_id: str | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Check every limit that is known before the wire (those of vLLM 0.32).

        Raises:
            InvalidRequest: Names the field, its value and the limit.
        """
        self._check_input()
        _check_text("model", self.model)
        _check_int("max_tokens", self.max_tokens, 1)
        _check_float("temperature", self.temperature, 0, 2)
        _check_float("top_p", self.top_p, 0, 1, open_below=True)
        _check_int("seed", self.seed, -_INT64, _INT64 - 1)
        _check_int("deadline_ms", self.deadline_ms, 1, 10**12)
        _check_int("priority", self.priority, -_INT64, _INT64 - 1)
        for name in ("session_id", "correlation_id", "job_id"):
            check_id(name, getattr(self, name))
        self._check_extra_body()

    def _check_input(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            given = "neither" if self.prompt is None else "both"
            raise InvalidRequest(f"prompt, messages: exactly one of the two is wanted, not {given}")
        if self.messages is not None:
            _check_messages(self.messages)
        elif isinstance(self.prompt, list):
            _check_token_ids(self.prompt)
        elif not isinstance(self.prompt, str):
            raise InvalidRequest(
                f"prompt: text or a list of token ids is wanted, not {type(self.prompt).__name__}"
            )
        elif not self.prompt:
            raise InvalidRequest("prompt: '' is empty; vLLM wants at least one token")

    def _check_extra_body(self) -> None:
        if not isinstance(self.extra_body, dict):
            raise InvalidRequest(
                f"extra_body: a dict is wanted, not {type(self.extra_body).__name__}"
            )
        for key in self.extra_body:
            if not isinstance(key, str):
                raise InvalidRequest(f"extra_body: the key {shown(key)} is not text")
            if key in _OWNED:
                raise InvalidRequest(f"extra_body.{key}: not settable; the adapter owns this field")
            if getattr(self, key, None) is not None and key in _FIELDS:
                raise InvalidRequest(f"extra_body.{key}: already set as the field {key}")

    @classmethod
    def from_dict(cls, kvs: Any, *, infer_missing: bool = False) -> TaskRequest:
        """The task that `to_dict` wrote; missing keys take their defaults.

        Raises:
            InvalidRequest: An unknown key, a wrong type, or a limit of `validate`.
        """
        if not isinstance(kvs, dict):
            raise InvalidRequest(f"task: a JSON object is wanted, not {type(kvs).__name__}")
        if unknown := sorted(str(key) for key in kvs if key not in _FIELDS):
            raise InvalidRequest(f"{unknown[0]}: no field of a task; put it into extra_body")
        task = cls(**kvs)
        task.validate()
        return task


_FIELDS = frozenset(f.name for f in fields(TaskRequest))


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: a list of at least one message is wanted")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"messages[{position}]: a dict with a 'role' is wanted")


def _check_token_ids(prompt: list[int]) -> None:
    if not prompt:
        raise InvalidRequest("prompt: [] is empty; vLLM wants at least one token")
    for position, token in enumerate(prompt):
        if type(token) is not int:  # not shown: it is part of a prompt
            raise InvalidRequest(
                f"prompt[{position}]: {type(token).__name__} is no token id; an int is wanted"
            )
        if token < 0:
            raise InvalidRequest(f"prompt[{position}]: {shown(token)} is no token id; it is < 0")


def _check_int(name: str, value: object, least: int, most: int | None = None) -> None:
    if value is None:
        return
    limit = f">= {least}" if most is None else f"from {least} to {most}"
    if type(value) is not int or value < least or (most is not None and value > most):
        raise InvalidRequest(f"{name}: {shown(value)} is not a whole number {limit}")


def _check_float(
    name: str, value: object, least: float, most: float, *, open_below: bool = False
) -> None:
    if value is None:
        return
    number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not number or not least <= value <= most or (open_below and value == least):  # type: ignore[operator]
        limits = f"{'(' if open_below else '['}{least}, {most}]"
        raise InvalidRequest(f"{name}: {shown(value)} is not a number in {limits}")


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidRequest(f"{name}: {shown(value)} is not text of at least 1 character")


def check_id(name: str, value: object) -> None:
    """Refuse what cannot be an id: it becomes a header and a log field.

    Raises:
        InvalidRequest: Names the field, its value and the limit.
    """
    _check_text(name, value)
    if not isinstance(value, str):
        return
    if len(value) > MAX_ID_LENGTH:
        raise InvalidRequest(
            f"{name}: {len(value)} characters, at most {MAX_ID_LENGTH} are allowed"
        )
    if not value.isprintable():
        raise InvalidRequest(f"{name}: {shown(value)} holds control characters; none are allowed")
    if value != value.strip():
        raise InvalidRequest(f"{name}: {shown(value)} begins or ends with a space; a header cannot")
