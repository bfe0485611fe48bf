"""How threads are started here, and how the main one waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ._errors import CapacityExceeded


def start_thread(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    """A daemon thread that runs already.

    Raises:
        CapacityExceeded: The system gives no more, or the interpreter is shutting down.
    """
    thread = threading.Thread(target=target, args=args, name=f"vllm_http-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as failure:
        raise CapacityExceeded(f"no thread to be had: {failure}") from failure
    return thread


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
