"""What must not survive a fork: threads do not, and locks and sockets belong to the parent.

`os.fork`, multiprocessing, prefork servers and uWSGI all call Python's at-fork hooks.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object that can start anew in a forked child."""

    def _forget_in_child(self) -> None:
        """Take new locks, drop what belongs to the parent. Must not take any existing lock."""


_alive: dict[int, weakref.ref[Forkable]] = {}
"""By identity. No WeakSet, which runs Python code when a member dies: an interrupt that came just
then would be swallowed there."""


def tell_in_child(thing: Forkable) -> None:
    """Call its `_forget_in_child` in every child that is forked while it lives."""
    key = id(thing)
    _alive[key] = weakref.ref(thing, functools.partial(_alive.pop, key))


def _in_child() -> None:
    for reference in list(_alive.values()):
        thing = reference()
        if thing is not None:
            thing._forget_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_in_child)
