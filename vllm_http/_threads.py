"""How threads are started here."""

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
