"""Exceptions of requests, urllib3, http.client and the system, as ours.

Each function makes the error and leaves the raising to the caller, outside of its ``except``: the
foreign ones hold the request with its key and its prompt, and the pool with its sockets, for as
long as an error of ours has them as context. The innermost cause is kept, alone.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import zlib

import requests
import urllib3

from ._connections_exchange import Aborted, Exchange
from ._errors import Timeout, WorkerError, shown
from ._failures import CUT, GARBAGE, INVALID, UNREACHABLE, UNUSABLE
from ._inflate import NotAsCoded
from ._redact import Redactor
from ._refusal import Asked, refusal_of_proxy


CONNECTION = (OSError, urllib3.exceptions.HTTPError, Aborted)  # RequestException is an OSError
"""What sending a request and waiting for its status may raise."""

BODY = (
    *(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, zlib.error),
    # http.client and urllib3 meet a file that was closed under them.
    *(ValueError, AttributeError),
)
"""What reading a body may raise."""


class StaleConnection(Exception):
    """A kept connection ended before anybody can have read the request."""


def connection_error(
    failure: Exception, exchange: Exchange, asked: Asked, base_url: str, redact: Redactor
) -> Exception:
    """What to raise for one of `CONNECTION`: a WorkerError, `StaleConnection` or `Aborted`."""
    error: WorkerError
    if exchange.late or _took_too_long(failure):
        error = Timeout(f"{base_url} did not take the connection in time", phase="connect")
    elif isinstance(failure, Aborted):
        return failure
    elif any(isinstance(cause, _BAD_URL) for cause in _causes(failure)):
        error = INVALID.error(redact(f"base_url: {_reason(failure)}"))
    elif exchange.unread and exchange.status is None and _died(failure):
        return StaleConnection()
    elif not exchange.requested and exchange.status not in (None, 200):
        error = refusal_of_proxy(exchange.status, asked)
    else:
        row = UNREACHABLE if _may_pass(failure) else UNUSABLE
        who = f"proxy {asked.proxy}" if asked.proxy and not exchange.requested else base_url
        error = row.error(redact(f"no answer from {who}: {_told(failure)}"))
    error.__cause__ = _root(failure)
    return error


_BAD_URL = (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError)


def body_error(failure: Exception) -> WorkerError:
    """What to raise for one of `BODY`."""
    if isinstance(failure, NotAsCoded):
        error = GARBAGE.error(f"engine sent a body that is not what it is coded as: {failure}")
    else:
        error = CUT.error(f"connection broke: {_reason(failure)}")
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
        if isinstance(cause, http.client.IncompleteRead):
            return "it was closed in the midst of the answer"
    root = _causes(failure)[-1]
    return str(root) or type(root).__name__


def _told(failure: Exception) -> str:
    """The same of a connection that gave no answer, and what to do where that is known."""
    reason = _reason(failure)
    for cause in _causes(failure):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{reason}; an authority of your own is named by verify=<path to its file>"
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return f"{reason}; where it speaks no TLS, its URL begins with http://"
        if isinstance(cause, _NOT_HTTP) and not isinstance(cause, ConnectionError):
            line = cause.args[0]
            if isinstance(cause, http.client.BadStatusLine) and _is_cut(line):
                return "the connection was closed in the midst of its first line"
            if line.startswith(_TLS_RECORDS):
                return "it speaks TLS, so its URL begins with https://"
            return f"it does not speak HTTP/1.1; its answer begins with {shown(line)}"
    return reason


_NOT_HTTP = (http.client.BadStatusLine, http.client.UnknownProtocol)
"""Of a first line, which is their argument; a RemoteDisconnected is one without any."""

_TLS_RECORDS = ("\x15\x03", "\x16\x03")  # an alert, a handshake


def _is_cut(line: str) -> bool:
    """Whether a first line that is none may be the beginning of one."""
    return not line.endswith("\n") and line[:5] == "HTTP/"[: len(line)]


def _root(failure: BaseException) -> BaseException:
    """The innermost cause, without what it happened in."""
    root = _causes(failure)[-1].with_traceback(None)
    root.__cause__ = root.__context__ = None
    return root


def _may_pass(failure: Exception) -> bool:
    """Whether it may go away by itself, by what happened at the bottom of it."""
    foreign = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
    if not isinstance(failure, foreign):
        return False  # a file of ours that is gone
    causes = _causes(failure)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _tls_was_cut(cause)
        if isinstance(cause, socket.gaierror):
            return cause.errno in _NO_SUCH_NAME_YET
        if isinstance(cause, http.client.HTTPException) and not isinstance(cause, ConnectionError):
            # What answers is no HTTP server, or sends more headers than anybody reads.
            return isinstance(cause, http.client.BadStatusLine) and _is_cut(cause.args[0])
    tls = (requests.exceptions.SSLError, urllib3.exceptions.SSLError)
    return not any(isinstance(cause, tls) for cause in causes)


_NO_SUCH_NAME_YET = (
    socket.EAI_AGAIN,
    socket.EAI_FAIL,
    # Not only a misspelt name: a container that restarts and a service without a ready pod have
    # none for a while. To ask again costs a look-up, and no engine has work with it.
    socket.EAI_NONAME,
    getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
)


def _tls_was_cut(failure: ssl.SSLError) -> bool:
    """Whether the connection went under TLS, not TLS itself: a server that restarts does that.

    Certificates, versions and alerts are as they are, but for the alert that RFC 8446 (6.2) has
    for troubles of the server's own.
    """
    if isinstance(failure, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return True
    reason = failure.reason or str(failure)
    return any(words in reason for words in _CUT_TLS)


_CUT_TLS = ("UNEXPECTED_EOF", "EOF occurred", "ALERT_INTERNAL_ERROR")


def _took_too_long(failure: BaseException) -> bool:
    """Whether the connect timeout struck, in TCP or in TLS; there is no other on the socket.

    A TimeoutError with a number is the system's own: its keep-alive probes were not answered.
    """
    return isinstance(failure, requests.exceptions.ConnectTimeout) or any(
        isinstance(cause, TimeoutError) and cause.errno is None for cause in _causes(failure)
    )


def _died(failure: Exception) -> bool:
    """Whether the connection ended, rather than bring something odd."""
    return any(
        isinstance(cause, ConnectionError)
        or (isinstance(cause, ssl.SSLError) and _tls_was_cut(cause))
        for cause in _causes(failure)
    )
