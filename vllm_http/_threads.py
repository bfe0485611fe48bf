"""How threads are started here, and how the main one waits."""

from __future__ import annotations

import _thread
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ._errors import AdapterClosed, CapacityExceeded


T = TypeVar("T")


def start_thread(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    """A daemon thread that runs already.

    On the main thread a signal handler may raise out of this at any moment, the thread running or
    not: whoever depends on it has the thread itself say that it is there.

    Raises:
        CapacityExceeded: The system gives no more, or threads would not run here; then it is not
            retriable.
        AdapterClosed: The interpreter is shutting down.
    """
    obstacle = _obstacle()
    if obstacle is not None:
        raise CapacityExceeded(f"no thread would run: {obstacle}", retriable=False)
    check_not_finalizing()
    thread = threading.Thread(target=target, args=args, name=f"vllm_http-{name}", daemon=True)
    try:
        uninterrupted(thread.start)
    except (RuntimeError, MemoryError) as failure:
        raise _no_thread(failure) from failure
    return thread


def _no_thread(failure: Exception) -> CapacityExceeded:
    return CapacityExceeded(f"no thread to be had: {failure}")


def uninterrupted(work: Callable[[], T]) -> T:
    """Do something that no signal handler may break off half-way; its result, or what it raised.

    Python runs signal handlers on the main thread alone, between any two instructions, and
    `Thread.start` among others is not made for an exception there: it may leave a thread that is
    counted and never runs, or raise RuntimeError in place of the interrupt. So what is called on
    the main thread is done by another, which `_thread` starts in one step. An interrupt then leaves
    this function at once, and the work is done all the same.

    Raises:
        CapacityExceeded: The system gives no more threads.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return work()
    outcome: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    try:
        _thread.start_new_thread(_do, (work, outcome))
    except (RuntimeError, MemoryError) as failure:
        raise _no_thread(failure) from failure
    done, value = outcome.get()
    if done:
        return value  # type: ignore[no-any-return]
    try:
        raise value
    finally:
        del value  # else the exception's traceback and this frame would hold each other


def _do(work: Callable[[], Any], outcome: queue.SimpleQueue[tuple[bool, Any]]) -> None:
    try:
        outcome.put((True, work()))
    except BaseException as failure:
        outcome.put((False, failure.with_traceback(None)))


def check_not_finalizing() -> None:
    """Refuse what would wait for ever: at the interpreter's end daemon threads stand still.

    Raises:
        AdapterClosed: It is shutting down; a `__del__` may still come here.
    """
    if sys.is_finalizing():
        raise AdapterClosed("the interpreter is shutting down")


def _green() -> str | None:
    """Whose greenlets stand in for the system's threads."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return None


_GREEN_AT_IMPORT = _green()

_UWSGI_RUNS_THREADS = (2, 0, 27)
"""The first uWSGI that has the interpreter free for threads between two requests by itself."""


def _obstacle() -> str | None:
    """Why a thread would hang or fail here, and what to do about it; None if it runs."""
    green = _green()
    if green == "eventlet":
        return "eventlet's monkey patching is not supported; gevent's is, and threads are"
    if green != _GREEN_AT_IMPORT:
        return (
            f"{green} has patched the program after it imported vllm_http; patch first (under "
            "gunicorn --preload, at the top of gunicorn.conf.py)"
        )
    uwsgi = sys.modules.get("uwsgi")  # there inside uWSGI only
    options = getattr(uwsgi, "opt", None)
    if options is None or uwsgi is None or uwsgi.version_info[:3] >= _UWSGI_RUNS_THREADS:
        return None
    if "enable-threads" in options or "threads" in options:
        return None
    return "uWSGI runs without --enable-threads"


_LOOKS_UP = 0.25
"""Seconds after which a waiting main thread looks whether a signal came."""


def patience(timeout: float | None) -> float:
    """How long this thread may wait at a time, in seconds, when it wants to wait for so long.

    Python runs signal handlers on the main thread, between two instructions. A ctrl-C that comes
    in the moment before that thread blocks, or that the system gives to another thread, wakes
    nobody: without this, a stalled stream would keep it until the next event.

    Raises:
        AdapterClosed: The interpreter is shutting down: whoever was to end the wait stands still.
    """
    check_not_finalizing()
    longest = threading.TIMEOUT_MAX
    if threading.get_ident() == threading.main_thread().ident:
        longest = _LOOKS_UP
    return longest if timeout is None else max(0.0, min(timeout, longest))


def deadline_in(timeout: float) -> float:
    """When a wait of so many seconds is over, by `time.monotonic`; at once while shutting down.

    Any number will do, infinity too: what the system's calls take is bounded by `patience`.
    """
    return time.monotonic() + (0.0 if sys.is_finalizing() else max(0.0, timeout))


def join(thread: threading.Thread, deadline: float) -> None:
    """Wait for a thread, unless it is this one, until then."""
    if thread is not threading.current_thread():
        thread.join(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
