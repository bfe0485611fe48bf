"""How threads are started here, and how the main one waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from ._errors import CapacityExceeded


def start_thread(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    """A daemon thread that runs already.

    Raises:
        CapacityExceeded: The system gives no more, the interpreter is shutting down, or threads
            would not run here; then it is not retriable.
    """
    obstacle = _obstacle()
    if obstacle is not None:
        raise CapacityExceeded(f"no thread would run: {obstacle}", retriable=False)
    thread = threading.Thread(target=target, args=args, name=f"vllm_http-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as failure:
        raise CapacityExceeded(f"no thread to be had: {failure}") from failure
    return thread


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
    """
    longest = threading.TIMEOUT_MAX
    if threading.get_ident() == threading.main_thread().ident:
        longest = _LOOKS_UP
    return longest if timeout is None else min(timeout, longest)
