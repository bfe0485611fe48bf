"""Exceptions of requests, urllib3, http.client and the system, as ours.

Each function makes the error and leaves the raising to the caller, outside of its ``except``: the
foreign ones hold the request with its key and its prompt, and the pool with its sockets, for as
long as an error of ours has them as context. The innermost cause is kept, alone.
"""

from __future__ import annotations

import http.client
import zlib

import requests
import urllib3

from ._connections import Aborted, Exchange
from ._errors import EngineUnavailable, InvalidRequest, StreamingError, Timeout
from ._redact import Redactor


CONNECTION = (OSError, urllib3.exceptions.HTTPError, Aborted)  # RequestException is an OSError
"""What sending a request and waiting for its status may raise."""

BODY = (
    *(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, zlib.error),
    # http.client and urllib3 meet a file that was closed under them.
    *(ValueError, AttributeError),
)
"""What reading a body may raise."""


class StaleConnection(Exception):
    """A pooled connection turned out to be dead before any byte of an answer came."""


def connection_error(
    failure: Exception, exchange: Exchange, base_url: str, redact: Redactor
) -> Exception:
    """What to raise for one of `CONNECTION`: a WorkerError, `StaleConnection` or `Aborted`."""
    error: Exception
    if exchange.late or _took_too_long(failure):
        error = Timeout(f"{base_url} did not take the connection in time", phase="connect")
    elif isinstance(failure, Aborted):
        return failure
    elif isinstance(failure, requests.exceptions.InvalidURL):
        error = InvalidRequest(redact(f"request: {failure}"))
    elif exchange.reused and not exchange.fresh and _died_unanswered(failure):
        return StaleConnection()
    else:
        error = EngineUnavailable(
            redact(f"no answer from {base_url}: {_reason(failure)}"),
            retriable=_may_pass(failure),
        )
    error.__cause__ = _root(failure)
    return error


def body_error(failure: Exception) -> StreamingError:
    """What to raise for one of `BODY`."""
    error = StreamingError(f"connection broke: {_reason(failure)}")
    error.__cause__ = _root(failure)
    return error


def _causes(failure: BaseException) -> list[BaseException]:
    """The failure and all that it wraps, outermost first; requests and urllib3 nest by args."""
    causes = [failure]
    for cause in causes:
        inner = (*cause.args, getattr(cause, "reason", None), cause.__cause__)
        causes.extend(c for c in inner if isinstance(c, BaseException) and c not in causes)
    return causes


def _reason(failure: BaseException) -> str:
    """What the operating system or the TLS library said, without the wrappings."""
    for cause in reversed(_causes(failure)):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    root = _causes(failure)[-1]
    return str(root) or type(root).__name__


def _root(failure: BaseException) -> BaseException:
    """The innermost cause, without what it happened in."""
    root = _causes(failure)[-1].with_traceback(None)
    root.__cause__ = root.__context__ = None
    return root


def _may_pass(failure: Exception) -> bool:
    """Whether it may go away by itself: not a bad certificate, nor a file of ours that is gone."""
    foreign = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
    return isinstance(failure, foreign) and not isinstance(failure, requests.exceptions.SSLError)


def _took_too_long(failure: BaseException) -> bool:
    """Whether the connect timeout struck, in TCP or in TLS; there is no other on the socket.

    A TimeoutError with a number is the system's own: its keep-alive probes were not answered.
    """
    return isinstance(failure, requests.exceptions.ConnectTimeout) or any(
        isinstance(cause, TimeoutError) and cause.errno is None for cause in _causes(failure)
    )


def _died_unanswered(failure: BaseException) -> bool:
    """Whether the peer closed before a byte of the answer, as a server does with an idle one."""
    return any(isinstance(cause, ConnectionError) for cause in _causes(failure))
