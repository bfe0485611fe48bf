"""A failure as strangers may see it: its class, its code, and a plain sentence."""

from __future__ import annotations

import re

from .._errors import (
    AdapterClosed,
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    Timeout,
    WorkerError,
)
from .._events import Error, TokenEvent


_SAID: dict[type[WorkerError], str] = {
    InvalidRequest: "The request was refused.",
    CapacityExceeded: "Too much is asked at the moment; try again later.",
    EngineUnavailable: "The engine cannot serve at the moment.",
    AdapterClosed: "The answer was ended before it was whole.",
    Timeout: "The answer took too long.",
    StreamingError: "The answer broke off.",
}
_FAILED = "Something went wrong."
_CODE = re.compile(r"[A-Z_]{1,64}")


def for_strangers(event: TokenEvent) -> TokenEvent:
    """The event; an `Error` without the engine's URL, its words, and what was told of a prompt."""
    if not isinstance(event, Error):
        return event
    error = event.error
    said = next((said for cls, said in _SAID.items() if isinstance(error, cls)), _FAILED)
    code = error.code if _CODE.fullmatch(error.code) else WorkerError().code
    if isinstance(error, Timeout):
        return Error(Timeout(said, phase=error.phase, code=code, retriable=error.retriable))
    return Error(type(error)(said, code=code, retriable=error.retriable))
