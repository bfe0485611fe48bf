"""What `redis` raises: which of it may pass by itself, how it is told, and trying again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from redis import exceptions

from vllm_http import StreamingError


T = TypeVar("T")

FAILURES = (exceptions.RedisError, exceptions.RedisClusterException)
"""All that a client raises; what that of a cluster raises is no `RedisError`."""

_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,  # a primary that has just become a replica
    exceptions.TryAgainError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,  # no node answers, or none has the slot
)
_DENIED = (exceptions.AuthenticationError, exceptions.AuthorizationError)
"""Connection errors to redis-py, but waiting gives nobody a password."""

_PASSING = re.compile(
    r"(?:^|-)(READONLY|LOADING|NOREPLICAS|OOM|MISCONF|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY"
    r"|UNBLOCKED) "
)
"""Codes of refusals that pass: first in the text, or behind a ``-`` where Redis 6 wraps a script's
own error."""

_LIMITS = {
    "Too many connections": "the client's pool is full; give it a larger max_connections",
    "No connection available": "the client's pool is full; give it a larger max_connections",
    "Too many open files": "this process has too many files open; see ulimit -n",
    "max number of clients reached": "Redis takes no more clients; see its maxclients",
}
"""Ends of connections that are none of Redis' being away, by what redis-py says of them."""

_PAUSE = 0.05, 0.5
"""The first and the longest wait before Redis is asked again."""


def passes(failure: Exception) -> bool:
    """Whether the same command may soon succeed."""
    if isinstance(failure, _DENIED):
        return False
    return (
        isinstance(failure, (*_AWAY, exceptions.OutOfMemoryError))
        or _PASSING.search(str(failure)) is not None
    )


def outlasted(failure: Exception, patience: float) -> StreamingError:
    """What failed for as long as somebody was willing to wait."""
    said = str(failure)
    for sign, limit in _LIMITS.items():
        if sign in said:
            return StreamingError(f"no connection to redis for {patience:g} s: {limit}")
    name = type(failure).__name__
    if isinstance(failure, exceptions.ResponseError):
        code = _PASSING.search(said)
        word = code[1] if code else name
        return StreamingError(f"redis has refused commands for {patience:g} s ({word})")
    return StreamingError(f"redis cannot be reached since {patience:g} s ({name})")


def refused(failure: Exception) -> StreamingError:
    """What no waiting mends."""
    message = f"redis refused a command ({type(failure).__name__})"
    return StreamingError(message, retriable=False)


def insist(step: Callable[[], T], patience: float, job_id: str) -> T:
    """Do a step in Redis; while Redis is away, again and again.

    Raises:
        StreamingError: Redis refused it, or stayed away for `patience` seconds.
    """
    until = time.monotonic() + patience
    pause, longest = _PAUSE
    while True:
        try:
            return step()
        except FAILURES as failure:
            if not passes(failure):
                error = refused(failure)
            elif time.monotonic() + pause > until:
                error = outlasted(failure, patience)
            else:
                time.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            error.job_id = job_id
            raise error from failure
