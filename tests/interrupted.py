"""An exception at every step of what the main thread does, as a signal handler raises it.

Python runs signal handlers between any two instructions of the main thread. A trace function stands
in for them: it raises at the k-th line that the thread runs in this package, for each k in turn.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import vllm_http


PACKAGE = str(Path(vllm_http.__file__).parent)


@functools.cache
def lines_of(path: str, kind: type[ast.stmt]) -> frozenset[int]:
    """The lines of a file at which such a statement begins."""
    tree = ast.parse(Path(path).read_text())
    return frozenset(node.lineno for node in ast.walk(tree) if isinstance(node, kind))


class Interrupted(BaseException):
    """What the handler raises: no Exception, as KeyboardInterrupt is none."""


class Interrupt:
    """Counts the lines of this package that a thread runs, and raises at one of them.

    Attributes:
        at: The line at which it raises, from 1; that it has raised is told by `place`.
        place: Where it has raised, such as ``"_run.py:12"``, or None.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.place: str | None = None
        self._lines = 0
        self._previous: dict[FrameType, int] = {}

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE) or self.place is not None:
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self._previous.pop(frame, None)
        elif event == "line" and self.place is None and not self._is_never_hit(frame):
            self._lines += 1
            if self._lines == self.at:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise Interrupted(self.place)
        return self._line

    def forget(self) -> None:
        """Let go of the frames, which hold what the work has made."""
        self._previous.clear()

    def _is_never_hit(self, frame: FrameType) -> bool:
        """Whether no signal handler runs here, though a trace function does.

        At a ``try``, which is no instruction, and at a ``with`` on the way out, before the call of
        ``__exit__``: what is raised there skips the blocks' ends.
        """
        path, line = frame.f_code.co_filename, frame.f_lineno
        previous = self._previous.get(frame, 0)
        self._previous[frame] = line
        return line in lines_of(path, ast.Try) or previous > line in lines_of(path, ast.With)


@contextmanager
def interrupted(at: int) -> Iterator[Interrupt]:
    """Raise at that line of what this thread runs in the block; what was raised goes on."""
    before = sys.gettrace()
    interrupt = Interrupt(at)
    sys.settrace(interrupt.trace)
    try:
        yield interrupt
    finally:
        sys.settrace(before)
        interrupt.forget()


def at_every_line(act: Callable[[Callable[[], Any]], None], step: int = 1) -> int:
    """Call `act` with a context for each line in turn, until nothing is interrupted any more.

    Args:
        act: Is given what makes the context; it does the work inside, and checks after it.
        step: To look at each second, third, ... line only.

    Returns:
        How many lines were tried.
    """
    at = 1
    while True:
        seen: list[Interrupt] = []

        @contextmanager
        def here(at: int = at, seen: list[Interrupt] = seen) -> Iterator[Interrupt]:
            with interrupted(at) as interrupt:
                seen.append(interrupt)
                yield interrupt

        act(here)
        if seen[0].place is None:
            return at - 1
        at += step
