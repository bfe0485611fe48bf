"""The one table of failures: what each means to the caller, and how often it is tried again.

Whoever meets a failure makes its error by a row; whoever tries again looks the row up. So what an
error says (`retriable`) and what is done after it are one decision, and a row that is not
retriable is never tried again. docs/errors.md shows the same table; a test compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ._errors import (
    AdapterClosed,
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    Phase,
    StreamingError,
    Timeout,
    Unknown,
    WorkerError,
)


AS_POLICY = math.inf
"""Tried again as often as `RetryPolicy` allows."""


@dataclass(frozen=True)
class Failure:
    """One row.

    Attributes:
        cls: The class of its error.
        code: The error's code.
        retriable: Whether the same task may be submitted again with hope.
        again: How often it is tried again by us, before the first content: 0, 1 or `AS_POLICY`.
        phase: Of a `Timeout`.
    """

    cls: type[WorkerError]
    code: str
    retriable: bool = False
    again: float = 0
    phase: Phase | None = None

    def error(self, message: str, **details: Any) -> WorkerError:
        """The error that says so."""
        if self.phase is not None:
            details["phase"] = self.phase
        return self.cls(message, code=self.code, retriable=self.retriable, **details)


# Refusals by status, also by the `code` of an error inside a 200.

INVALID = Failure(InvalidRequest, "INVALID_PARAMS")
_NO_ACCESS = Failure(InvalidRequest, "UPSTREAM_AUTH")
# The engine may be at work on the task: a second copy would double its load.
_GAVE_UP = Failure(Timeout, "DECODE_TIMEOUT", True, 0, "first_token")
_BUSY = Failure(CapacityExceeded, "ADMISSION_REJECT", True)
_UNABLE = Failure(EngineUnavailable, "POOL_UNAVAILABLE")
_DOWN = Failure(EngineUnavailable, "POOL_UNAVAILABLE", True, AS_POLICY)

_STATUSES = {
    401: _NO_ACCESS,
    403: _NO_ACCESS,
    404: Failure(InvalidRequest, "UPSTREAM_NOT_FOUND"),
    407: _NO_ACCESS,  # a proxy's
    408: _GAVE_UP,
    409: _BUSY,
    425: _BUSY,
    429: Failure(CapacityExceeded, "ADMISSION_REJECT", True, AS_POLICY),
    # Ambiguous (vLLM 0.32: its engine is dead, it shuts down, or it was a passing failure).
    500: Failure(EngineUnavailable, "POOL_UNAVAILABLE", True, 1),
    502: _DOWN,
    503: _DOWN,
    504: _DOWN,
}


def of_status(status: int) -> Failure:
    """The row of a status other than 200: 501, 3xx and what HTTP does not know are lasting."""
    if status in _STATUSES:
        return _STATUSES[status]
    return INVALID if 400 <= status < 500 else _UNABLE


# Failures without a number.

UNREACHABLE = _DOWN
"""Refused, reset, closed before an answer, an unknown name: it may come back."""

UNUSABLE = _UNABLE
"""A certificate, a TLS version, a file of ours: the next try meets the same."""

UNNUMBERED = _DOWN
"""An error inside a 200 that has no number."""

CUT = Failure(StreamingError, "WORKER_RESET", True, AS_POLICY)
"""A 200 that was cut or aborted."""

GARBAGE = Failure(StreamingError, "WORKER_RESET")
"""A 200 that is no answer to what was asked: HTML, no JSON, more bytes than are taken."""

_TIMEOUTS = {
    "queued": Failure(Timeout, "ADMISSION_REJECT", True, 0, "queued"),
    "connect": Failure(Timeout, "POOL_UNAVAILABLE", True, AS_POLICY, "connect"),
    "first_token": _GAVE_UP,
    "stall": Failure(Timeout, "DECODE_TIMEOUT", True, 0, "stall"),
    "deadline": Failure(Timeout, "DEADLINE_UNMET", False, 0, "deadline"),
}

_FULL = _BUSY  # the adapter's own limits
_CLOSED = Failure(AdapterClosed, "POOL_UNREADY")
_BUG = Failure(Unknown, "INTERNAL")

_WITHOUT_NUMBER = {
    (row.cls, row.retriable): row
    for row in (UNREACHABLE, UNUSABLE, CUT, GARBAGE, INVALID, _FULL, _CLOSED, _BUG)
}


def row_of(error: WorkerError) -> Failure:
    """The row of an error, however it was made."""
    if error.status is not None:
        row = of_status(error.status)
        # An error inside a stream may have a class that its number alone does not give.
        if (row.cls, row.retriable) == (type(error), error.retriable):
            return row
    if isinstance(error, Timeout):
        row = _TIMEOUTS[error.phase]
        return row if row.retriable == error.retriable else _BUG
    return _WITHOUT_NUMBER.get((type(error), error.retriable), _BUG)
