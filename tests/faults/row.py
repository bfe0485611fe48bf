"""What a row of the matrix is: a fault, the phase it strikes in, and what the caller sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from support import LIMIT

from vllm_http import (
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    Timeout,
    WorkerError,
)
from vllm_http.testing import Step


Script = Sequence[Step]

# The phases of an answer, in the order in which they pass.
CONNECT = "connect"
NO_HEADERS = "before the headers"
HEADERS = "in the headers"
INSTEAD = "instead of a stream"  # the headers are whole, and what they announce is no event stream
NO_CONTENT = "before content"
MIDDLE = "in mid-stream"
NO_DONE = "before [DONE]"  # all tokens have come, finish_reason and usage as well
AFTER = "after [DONE]"
ALL_ALONG = "all along"
PHASES = (CONNECT, NO_HEADERS, HEADERS, INSTEAD, NO_CONTENT, MIDDLE, NO_DONE, AFTER, ALL_ALONG)
_UNSTARTED = PHASES[:4]


@dataclass(frozen=True)
class Sees:
    """How a stream ends for its caller.

    Attributes:
        error: The class of the error; None for an honest `End`.
        code: The error's code.
        retriable: Whether the same task may be submitted again with hope.
        clock: Which clock ran out; then the task runs under short ones.
    """

    error: type[WorkerError] | None = None
    code: str = ""
    retriable: bool = False
    clock: str = ""

    @property
    def kind(self) -> str:
        """In one word, for the summary."""
        return self.error.__name__ if self.error is not None else "End"


END = Sees()
CUT = Sees(StreamingError, "WORKER_RESET", retriable=True)
GARBAGE = Sees(StreamingError, "WORKER_RESET")
DOWN = Sees(EngineUnavailable, "POOL_UNAVAILABLE", retriable=True)
UNABLE = Sees(EngineUnavailable, "POOL_UNAVAILABLE")
FULL = Sees(CapacityExceeded, "ADMISSION_REJECT", retriable=True)
INVALID = Sees(InvalidRequest, "INVALID_PARAMS")
NO_ACCESS = Sees(InvalidRequest, "UPSTREAM_AUTH")
NOT_FOUND = Sees(InvalidRequest, "UPSTREAM_NOT_FOUND")
NO_CONNECTION = Sees(Timeout, "POOL_UNAVAILABLE", retriable=True, clock="connect")
SILENT = Sees(Timeout, "DECODE_TIMEOUT", retriable=True, clock="first_token")
STALLED = Sees(Timeout, "DECODE_TIMEOUT", retriable=True, clock="stall")


@dataclass(frozen=True)
class Row:
    """One line of the matrix.

    Attributes:
        fault: What goes wrong.
        phase: When.
        script: What the engine does, at each attempt.
        sees: How the stream ends.
        text: What had come by then, all of it and nothing twice.
        sent: How many requests reach the engine, when three attempts are allowed.
        then: The script of all attempts but the first, where it is another.
        status: The error's.
        says: Words of the engine that the error's message holds.
        waits: Seconds after which the end is due; one clock, where one runs out.
        retry_after_ms: The values that the error may have.
        started: Whether `Started` comes first; by default, where a stream began.
        at: Where the task is sent to, if not to the engine that plays the script.
        kept: It goes over a connection that has served before.
        chat: It is a chat.
    """

    fault: str
    phase: str
    script: Script
    sees: Sees
    text: str = ""
    sent: int = 1
    then: Script | None = None
    status: int | None = None
    says: str = ""
    waits: float | None = None
    retry_after_ms: range | None = None
    started: bool | None = None
    at: str = "engine"
    kept: bool = False
    chat: bool = False

    def __str__(self) -> str:
        return f"{self.fault}, {self.phase}"

    @property
    def scripts(self) -> list[Script]:
        """One for each request that is to come."""
        later = self.script if self.then is None else self.then
        return [self.script, *[later] * (self.sent - 1)][: self.sent]

    @property
    def due(self) -> float:
        """Seconds after which the last event is due."""
        if self.waits is not None:
            return self.waits
        return LIMIT if self.sees.clock else 0.0

    @property
    def starts(self) -> bool:
        """Whether `Started` is the first event."""
        if self.started is not None:
            return self.started
        return self.sees is END or self.phase not in _UNSTARTED
