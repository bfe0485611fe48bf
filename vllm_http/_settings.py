"""The numbers a user may set: the four clocks (and the queue's), and the retries."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ._errors import InvalidRequest, shown
from ._values import Value


_LONGEST = 10**9
"""Seconds, 31 years: more overflows what the system calls take."""


@dataclass(frozen=True)
class Timeouts(Value):
    """How long to wait for what, in seconds; None means no limit.

    The clocks run on content (text, a tool call, reasoning, token ids): SSE comments and role
    chunks reset nothing. A task waits for its own turn as well as for the engine, so each phase
    has its own clock and the error names it.

    Attributes:
        queued: From `submit` until a worker is free.
        connect: TCP connect (each address of the name) and TLS handshake. DNS is outside of it.
        first_token: From the request on the wire to the first content, anew for each attempt.
            vLLM answers 200 within milliseconds and queues afterwards, so this is the clock that
            a busy engine uses up.
        stall: Between two pieces of content. Stands still while the caller is the slow side.
            vLLM 0.32 was seen silent for 11 s in mid-stream when it preempts.
        total: From `submit` to the end, waiting and retries included.
    """

    queued: float | None = 120.0
    connect: float | None = 5.0
    first_token: float | None = 120.0
    stall: float | None = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not _is_number(value, above=0):
                raise InvalidRequest(
                    f"timeouts.{field.name}: {shown(value)} is no number of seconds in "
                    f"(0, {_LONGEST}]; None means no limit"
                )


@dataclass(frozen=True)
class RetryPolicy(Value):
    """How often to try again before the first content has come; never after.

    The wait after n failed attempts is random between 0 and ``base * 2 ** (n - 1)`` seconds, at
    most ``cap`` (full jitter). A Retry-After of the engine is obeyed where it is longer. What is
    tried again at all is in docs/errors.md.

    Attributes:
        attempts: Attempts in all, the first included; 1 means no retry. It bounds how often the
            engine can have read the task. On top of it, a task goes out once more, at once and on
            a fresh connection, where a kept connection ended before the engine can have read it:
            nothing of it was acknowledged, or the end came within a round trip.
        base: Seconds.
        cap: Seconds.
        max_retry_after: Seconds; an engine that asks for more fails the task at once.
    """

    attempts: int = 4
    base: float = 0.2
    cap: float = 2.0
    max_retry_after: float = 30.0

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise InvalidRequest(
                f"retry.attempts: {shown(self.attempts)} is not a whole number >= 1"
            )
        for name in ("base", "cap", "max_retry_after"):
            if not _is_number(getattr(self, name), at_least=0):
                raise InvalidRequest(
                    f"retry.{name}: {shown(getattr(self, name))} is not a number of seconds >= 0"
                )

    def bound(self, failures: int) -> float:
        """The longest wait after that many failed attempts (1 or more), in seconds."""
        return min(self.cap, self.base * 2.0 ** min(failures - 1, 64))


def _is_number(value: object, *, above: float = -math.inf, at_least: float = -math.inf) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return above < value <= _LONGEST and value >= at_least


@dataclass(frozen=True, slots=True)
class Labels:
    """What an adapter's log records say of it."""

    pool_id: str | None
    replica_id: str | None
