"""What an error carries besides its words: frames, and in them all that was at hand.

`pytest -l`, debuggers and error trackers print the locals of every frame of a traceback: keys in
headers, passwords in a proxy's URL, prompts. An error that reaches a caller has none of ours.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from ._errors import Unknown, WorkerError


P = ParamSpec("P")
T = TypeVar("T")


def frameless(call: Callable[P, T]) -> Callable[P, T]:
    """A public call whose errors have a single frame of ours, and nothing in that."""

    @functools.wraps(call)
    def public(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except WorkerError as failure:
            error = failure
        except BaseException:
            del args, kwargs
            raise
        del args, kwargs
        forget_frames(error)
        try:
            raise error
        finally:
            del error  # else its traceback and this frame would hold each other

    return public


def forget_frames(error: BaseException) -> None:
    """Drop the frames of an error and of what caused it.

    Of our own bugs they are kept for a report, but emptied: each says where, and not with what.
    What was merely being handled meanwhile is let go of and left as it is: it may be the caller's.
    """
    one: BaseException | None = error
    bug = False
    while one is not None:
        one.__context__ = None
        one.__traceback__ = _emptied(one.__traceback__) if bug else None
        bug = bug or isinstance(one, Unknown)
        one = one.__cause__


def _emptied(frames: TracebackType | None) -> TracebackType | None:
    """The frames without their locals, and without those that still run: they have theirs."""
    while frames is not None:
        try:
            frames.tb_frame.clear()
            break
        except RuntimeError:
            frames = frames.tb_next
    traceback.clear_frames(frames)
    return frames
