"""All locks that some objects hold, found by walking what they refer to."""

from __future__ import annotations

import ast
import functools
import gc
import threading
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import vllm_http


LOCKS = (type(threading.Lock()), type(threading.RLock()))
OURS = "vllm_http"
FOLLOWED = {OURS, "requests", "urllib3", "queue", "selectors"}
CONTAINERS = (
    *(dict, list, tuple, set, deque),
    *(functools.partial, types.MethodType, threading.Event, threading.Condition),
)
MAKERS = {"Lock", "RLock", "Condition", "Event"}


class Found(NamedTuple):
    """A lock, and the classes of ours that lead to it, be it through objects of others."""

    lock: Any
    owners: set[str]


def module_of(thing: object) -> str:
    """The package that an object's class is from."""
    return type(thing).__module__.partition(".")[0]


def referents(thing: object) -> Iterable[object]:
    """What an object refers to, as far as it may lead to a lock of ours."""
    if isinstance(thing, types.GeneratorType):
        return list(thing.gi_frame.f_locals.values()) if thing.gi_frame is not None else []
    if isinstance(thing, (type, types.ModuleType, types.FunctionType)):
        return []
    if isinstance(thing, CONTAINERS) or module_of(thing) in FOLLOWED:
        return gc.get_referents(thing)
    return []


def locks_of(*things: object) -> list[Found]:
    """All locks that can be reached from these."""
    seen: dict[int, object] = {}  # the objects too, so that no id is used twice meanwhile
    found: dict[int, Found] = {}
    left = [(thing, "") for thing in things]
    while left:
        thing, owner = left.pop()
        if isinstance(thing, LOCKS):
            found.setdefault(id(thing), Found(thing, set())).owners.add(owner)
        elif id(thing) not in seen:
            seen[id(thing)] = thing
            owner = type(thing).__name__ if module_of(thing) == OURS else owner
            left.extend((referent, owner) for referent in referents(thing))
    return list(found.values())


def makers() -> set[str]:
    """The classes of the package whose methods make a lock."""
    return {
        kind.name
        for path in Path(vllm_http.__file__).parent.glob("*.py")
        for kind in ast.walk(ast.parse(path.read_text()))
        if isinstance(kind, ast.ClassDef)
        for call in ast.walk(kind)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value) == "threading"
        and call.func.attr in MAKERS
    }


@contextmanager
def held_elsewhere(locks: list[Found]) -> Iterator[None]:
    """Another thread holds all of them within the block; those that nobody can have are held."""
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        held = [found.lock for found in locks if found.lock.acquire(timeout=0.1)]
        holds.set()
        release.wait()
        for lock in held:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait()
    try:
        yield
    finally:
        release.set()
        holder.join()
