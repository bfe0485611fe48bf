"""The engine's version, asked for beside the first task; it never holds one up for long."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from ._errors import CapacityExceeded, WorkerError
from ._threads import deadline_in, join, start_thread


ASK_AGAIN = 60.0
"""Seconds after which an unknown version is asked for again."""


class Announces(Protocol):
    """A task whose `Started` tells the version."""

    def version_came(self) -> None:
        """It is known, or known to be unknown. Never raises."""


class EngineVersion:
    """The version, once known. Thread-safe.

    Args:
        ask: Asks the engine; raises `WorkerError` when it does not tell.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._known = ""
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: nobody is asking any more."""
        self._lock = threading.RLock()
        self._asker: threading.Thread | None = None
        self._asked_at = -ASK_AGAIN
        self._waiting: list[weakref.ref[Announces]] = []

    @property
    def known(self) -> str:
        """The version, or "" if it is not known."""
        return self._known

    def now(self) -> str | None:
        """The version, or "unknown"; None while it is being asked for."""
        return self._known or (None if self._asker is not None else "unknown")

    def learn(self) -> str:
        """The version; asks and waits if it is not known. "unknown" rather than an error."""
        if not self._known:
            try:
                self._known = self._ask()
            except WorkerError:
                return "unknown"
        return self._known

    def expect(self, run: Announces) -> None:
        """Ask in the background, unless it is known or was asked for within `ASK_AGAIN`.

        Not on a thread of the caller's: a signal handler's exception may hit a thread's start.

        Args:
            run: Told when the answer is there, if it lives that long and one is being waited for.
        """
        if self._known:
            return
        with self._lock:
            if self._asker is not None:
                self._waiting.append(weakref.ref(run))
            elif time.monotonic() - self._asked_at >= ASK_AGAIN:
                self._asked_at = time.monotonic()
                self._waiting.append(weakref.ref(run))
                with contextlib.suppress(CapacityExceeded):  # then it stays unknown for now
                    self._asker = start_thread("version", self._learn_and_tell)

    def join(self, timeout: float) -> None:
        """Wait so many seconds for whoever is asking."""
        asker = self._asker
        if asker is not None:
            join(asker, deadline_in(timeout))

    def _learn_and_tell(self) -> None:
        try:
            self.learn()
        finally:
            with self._lock:
                self._asker = None
                waiting, self._waiting = self._waiting, []
            for reference in waiting:
                run = reference()
                if run is not None:
                    run.version_came()
