"""What stands in for the standard library in a module under `exploring.schedules`."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from unittest import mock

from exploring.files import Selector, close, empty, pipe, write
from exploring.locks import Event, Lock, RLock, SimpleQueue, worlds


if TYPE_CHECKING:
    from exploring.managed import Thread as Managed


T = TypeVar("T")


class Started:
    """A `threading.Thread` that `start_thread` has started."""

    def __init__(self, managed: Managed) -> None:
        self.managed = managed

    @property
    def name(self) -> str:
        """See `threading.Thread`."""
        return self.managed.name

    @property
    def ident(self) -> int:
        """See `threading.Thread`."""
        return id(self.managed)

    def is_alive(self) -> bool:
        """See `threading.Thread`."""
        return not self.managed.done

    def join(self, timeout: float | None = None) -> None:
        """See `threading.Thread`."""
        if not self.managed.done:
            worlds[-1].block(lambda: self.managed.done, -1 if timeout is None else timeout)

    def __hash__(self) -> int:
        return self.managed.number  # the order of a set must be the same in each run


def start_thread(name: str, target: Callable[..., object], *args: Any) -> object:
    """As in `_threads`; an interrupt may come while it waits for the thread to have begun."""
    world = worlds[-1]
    same = sum(thread.name.startswith(name) for thread in world.threads)
    thread = world.thread(f"{name}-{same}", lambda: target(*args), daemon=True)
    thread.handle = Started(thread)
    world.interruptible()
    return thread.handle


def uninterrupted(work: Callable[[], T]) -> T:
    """As in `_threads`; the main thread is the one that is interrupted."""
    world = worlds[-1]
    if world.me is None or world.me.name not in world.interrupts:
        return work()
    outcome = SimpleQueue()

    def help_out() -> None:
        try:
            outcome.put((work(), None))
        except Exception as failure:
            outcome.put((None, failure))

    world.thread(f"helper-{len(world.threads)}", help_out, daemon=True)
    world.interruptible()
    value, failure = outcome.get()
    if failure is not None:
        raise failure
    return cast("T", value)


def current_thread() -> object:
    """See `threading.current_thread`."""
    me = worlds[-1].me
    if me is None:
        return SimpleNamespace(name="main")
    if me.handle is None:
        me.handle = Started(me)
    return me.handle


def get_ident() -> int:
    """See `threading.get_ident`."""
    return id(worlds[-1].me)


def monotonic() -> float:
    """Time goes on by itself, a little with each look at it."""
    worlds[-1].now += 1e-6
    worlds[-1].interruptible()
    return worlds[-1].now


def sleep(seconds: float) -> None:
    """See `time.sleep`."""
    worlds[-1].block(lambda: False, seconds)
    worlds[-1].interruptible()


def _stand_in(real: ModuleType, **models: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(real), **models})


MODELS = {
    "threading": _stand_in(
        threading,
        Lock=Lock,
        RLock=RLock,
        Event=Event,
        current_thread=current_thread,
        get_ident=get_ident,
    ),
    "time": _stand_in(time, monotonic=monotonic, sleep=sleep),
    "queue": _stand_in(queue, SimpleQueue=SimpleQueue),
    "os": _stand_in(
        os, pipe=pipe, write=write, read=empty, close=close, set_blocking=lambda end, on: None
    ),
    "selectors": _stand_in(selectors, DefaultSelector=Selector),
    "start_thread": start_thread,
    "uninterrupted": uninterrupted,
}


@contextlib.contextmanager
def substituted(modules: Iterable[ModuleType], **more: Any) -> Iterator[None]:
    """Put the models into modules, for all names that these have."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            for name, model in {**MODELS, **more}.items():
                if name in vars(module):
                    stack.enter_context(mock.patch.object(module, name, model))
        yield
