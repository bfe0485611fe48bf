"""What can go wrong, as exceptions.

    WorkerError                 never raised itself
    ├── Timeout                 one of our clocks ran out; `phase` says which
    ├── EngineUnavailable       refused, reset, DNS, TLS, 5xx, a redirect
    ├── InvalidRequest          the task or an argument is wrong (4xx, or found before the wire)
    ├── CapacityExceeded        429 from the engine, or our own limits are reached
    ├── StreamingError          a 200 whose body is cut, aborted, garbage or not a stream
    ├── AdapterClosed           the adapter or the stream was closed, or is the parent process's
    └── Unknown                 our own bug

An error is data: it pickles, goes to JSON and back, and holds no secret. We put no prompt into
it; the engine's own words, which it may quote, are redacted and bounded.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ._redact import printable


if TYPE_CHECKING:
    from ._events import Completion

Phase = Literal["queued", "connect", "first_token", "stall", "deadline"]


class WorkerError(Exception):
    """The base of everything this package raises or puts into an `Error` event.

    Attributes:
        code: The envelope code that orchestrators expect, such as ``"POOL_UNAVAILABLE"``.
        message: What happened, in one sentence; the engine's own text is bounded and redacted.
        retriable: Whether the same task may be submitted again with hope.
        retry_after_ms: How long the engine asked to wait, or None.
        status: The HTTP status, or the ``code`` of an error inside a 200 stream, or None.
        job_id: The job it belongs to, once known.
        partial: What had arrived, where ``result()`` or ``map`` drained for the caller; else None.

    Its second argument is what `to_dict` gave, for those who rebuild exceptions from their
    ``args``, as Celery's result backends do.
    """

    _code = "INTERNAL"
    _retriable = False
    _read_partial: ClassVar[Callable[[Any], Completion]]  # given by the module of `Completion`

    def __init__(
        self,
        message: str = "",
        whole: dict[str, Any] | None = None,
        *,
        code: str | None = None,
        retriable: bool | None = None,
        retry_after_ms: int | None = None,
        status: int | None = None,
        job_id: str | None = None,
        partial: Completion | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self._code if code is None else code
        self.retriable = self._retriable if retriable is None else retriable
        self.retry_after_ms = retry_after_ms
        self.status = status
        self.job_id = job_id
        self.partial = partial
        if whole is not None:
            self._restore(whole)

    def _restore(self, whole: dict[str, Any]) -> None:
        for name, value in _details(error_from_dict(whole)).items():
            setattr(self, name, value)
        if whole.get("partial") is not None:
            self.partial = type(self)._read_partial(whole["partial"])

    def __init_subclass__(cls) -> None:
        # Tracebacks and pickles name the public place, not this file.
        cls.__module__ = "vllm_http"

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, {**_details(self), "partial": self.partial})

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON-able values; `error_from_dict` is the inverse."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            **_details(self),
            "partial": None if self.partial is None else self.partial.to_dict(),
        }


WorkerError.__module__ = "vllm_http"


class Timeout(WorkerError):
    """A clock ran out. Not a builtin TimeoutError, which means the caller's own patience.

    Attributes:
        phase: ``"queued"`` (no worker came free), ``"connect"``, ``"first_token"`` (the engine
            took the request and sent no content), ``"stall"`` (content stopped coming) or
            ``"deadline"`` (the task's total time; the only one that is not retriable).
    """

    _codes: ClassVar = {
        "queued": "ADMISSION_REJECT",
        "connect": "POOL_UNAVAILABLE",
        "first_token": "DECODE_TIMEOUT",
        "stall": "DECODE_TIMEOUT",
        "deadline": "DEADLINE_UNMET",
    }

    def __init__(
        self,
        message: str = "",
        whole: dict[str, Any] | None = None,
        *,
        phase: Phase = "deadline",
        **details: Any,
    ) -> None:
        details.setdefault("code", self._codes[phase])
        details.setdefault("retriable", phase != "deadline")
        self.phase: Phase = phase
        super().__init__(message, whole, **details)


class EngineUnavailable(WorkerError):
    """The engine cannot be reached, or says that it cannot serve."""

    _code = "POOL_UNAVAILABLE"
    _retriable = True


class InvalidRequest(WorkerError, ValueError):
    """The request is wrong and stays wrong. Also a ValueError, as Python expects of arguments."""

    _code = "INVALID_PARAMS"


class CapacityExceeded(WorkerError):
    """Too much at once: the engine's limit (429) or the adapter's own."""

    _code = "ADMISSION_REJECT"
    _retriable = True


class StreamingError(WorkerError):
    """A stream that began and did not end honestly."""

    _code = "WORKER_RESET"
    _retriable = True


class AdapterClosed(WorkerError):
    """The adapter or the stream was closed, or is that of the process this one was forked from."""

    _code = "POOL_UNREADY"


class Unknown(WorkerError):
    """Something unforeseen in our own code; please report it."""


def closed_before_end(job_id: str | None = None) -> AdapterClosed:
    """What "no more events" means where none of them was an `End` or `Error`."""
    return AdapterClosed("the stream was closed before its end", job_id=job_id)


def unforeseen(failure: BaseException) -> Unknown:
    """What our own bug becomes. Its text might hold anything, so the type alone is told."""
    unknown = Unknown(f"unforeseen {type(failure).__name__} in the worker")
    unknown.__cause__ = failure
    return unknown


_CLASSES: dict[str, type[WorkerError]] = {
    cls.__name__: cls
    for cls in (
        WorkerError,
        Timeout,
        EngineUnavailable,
        InvalidRequest,
        CapacityExceeded,
        StreamingError,
        AdapterClosed,
        Unknown,
    )
}
_DETAILS = ("code", "retriable", "retry_after_ms", "status", "job_id")


def _details(error: WorkerError) -> dict[str, Any]:
    details = {name: getattr(error, name) for name in _DETAILS}
    if isinstance(error, Timeout):
        details["phase"] = error.phase
    return details


def _rebuild(cls: type[WorkerError], message: str, details: dict[str, Any]) -> WorkerError:
    return cls(message, **details)


_MOST_NAMED = 12

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def shown(value: object) -> str:
    """A refused value as a message shows it: short and on one line, whatever it is."""
    try:
        return printable(_repr.repr(value))
    except Exception:  # an int of more digits than Python prints, or somebody's own class
        return f"<{type(value).__name__}>"


def named(key: object) -> str:
    """A key of somebody's document as the place that a message names: bare, where it is text."""
    return shown(key)[1:-1] if isinstance(key, str) else shown(key)


def error_from_dict(value: dict[str, Any]) -> WorkerError:
    """The error that `WorkerError.to_dict` wrote, but for its ``partial``.

    Raises:
        InvalidRequest: It names no error of this package, or holds keys that no error has.
    """
    details = {k: v for k, v in value.items() if k not in ("error", "message", "partial")}
    cls = _CLASSES.get(str(value.get("error")))
    allowed = {*_DETAILS, "phase"} if cls is Timeout else set(_DETAILS)
    if cls is None or not details.keys() <= allowed:
        keys = ", ".join(map(named, list(value)[:_MOST_NAMED]))
        raise InvalidRequest(f"error: not an error of this package: it has {keys or 'no keys'}")
    return cls(str(value.get("message", "")), **details)
